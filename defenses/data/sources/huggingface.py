"""Data sets of the Hugging Face hub or in its formats, through the `datasets` library; no code of theirs is run.

This is the one source that may fetch files: `datasets` keeps them in its own cache, and works from there without
network (`HF_HUB_OFFLINE=1` spares it the tries).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.data import images
from defenses.data.sources.base import DatasetInfo, hold_out, revision_of
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from defenses.utils.arrays import F32, I64

FORM = "hf:<owner/name or ./folder>[:<config>][@<revision>][?image=<column>&label=<column>]"
_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class _Catalogue:
    """Features by column, images by their names of the splits, and the revision."""

    features: Any
    sizes: dict[str, int]
    revision: str


@dataclass
class Hub:
    """See `defenses.data.sources.base.Source`."""

    name: str
    where: str
    config: str | None
    revision: str | None
    options: dict[str, str]
    _tables: dict[str, Any] = field(default_factory=dict)
    _seen: _Catalogue | None = None

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.where.startswith(("/", ".", "~"))

    def info(self) -> DatasetInfo:
        """From metadata and one picture, where the metadata say enough; else the tables are opened, not read."""
        with _datasets(self.name) as library:
            catalogue = self._catalogue(library)
            image, label = self._columns(catalogue.features)
            splits = self._splits(catalogue)
            table = self._part(library, next(s for s in ("test", "validation", "train") if s in splits))
            shape = self._recipe(table, image).shape(lambda: table[0][image])
        classes = getattr(catalogue.features[label], "num_classes", None)
        if classes is None:
            classes = 1 + max(int(self.labels(split).max()) for split in splits)
        return DatasetInfo(self.name, classes, shape, catalogue.revision, splits)

    def load(self, split: str) -> tuple[F32, I64]:
        """Images and labels."""
        with _datasets(self.name) as library:
            table = self._part(library, split)
            image, _ = self._columns(table.features)
            named = ((f"{self.name} {split} {i}", row[image]) for i, row in enumerate(table.select_columns([image])))
            return images.stack(named, len(table), self._recipe(table, image)), self.labels(split)

    def labels(self, split: str) -> I64:
        """Labels."""
        import numpy as np

        from defenses.data.formats import as_labels

        with _datasets(self.name) as library:
            table = self._part(library, split)
            _, label = self._columns(table.features)
            return as_labels(np.asarray(table[label][:]), f"{self.name}: {label} of {split}")

    def _catalogue(self, library: Any) -> _Catalogue:
        """What it holds, looked up once."""
        if self._seen is None:
            self._seen = self._opened(library) if self.local else self._described(library)
        return self._seen

    def _described(self, library: Any) -> _Catalogue:
        """As the hub's metadata say, or as the tables are where they do not."""
        builder = library.load_dataset_builder(self.where, self.config, revision=self.revision)
        if self.revision and type(builder).__name__ == "Cache" and not builder.hash.startswith(self.revision):
            raise UserError(f"{self.name}: only revision {builder.hash} is in the cache; connect, or name that one")
        revision = f"commit-{builder.hash[:12]}"
        if not builder.info.features or not builder.info.splits:
            return replace(self._opened(library), revision=revision)
        return _Catalogue(builder.info.features, {s: i.num_examples for s, i in builder.info.splits.items()}, revision)

    def _opened(self, library: Any) -> _Catalogue:
        folder = Path(self.where).expanduser()
        if self.local and any((folder / f).is_file() for f in ("state.json", "dataset_dict.json")):
            opened = library.load_from_disk(str(folder))  # what save_to_disk wrote
        else:
            opened = library.load_dataset(
                str(folder) if self.local else self.where, self.config, revision=self.revision
            )
        self._tables |= opened if isinstance(opened, library.DatasetDict) else {"test": opened}
        sizes = {theirs: len(table) for theirs, table in self._tables.items()}
        return _Catalogue(next(iter(self._tables.values())).features, sizes, _hash(folder) if self.local else "")

    def _splits(self, catalogue: _Catalogue) -> dict[str, int]:
        """Our splits and their sizes."""
        sizes = {s: catalogue.sizes[name] for s in _SPLITS if (name := _theirs(s, catalogue.sizes))}
        if "train" in sizes and "validation" not in sizes:
            sizes |= {split: len(at) for split, at in hold_out(sizes["train"]).items() if at}
        if not sizes:
            known = ", ".join(catalogue.sizes)
            raise UserError(f"{self.name} has the splits {known}; one must be named train, validation or test")
        return {split: sizes[split] for split in _SPLITS if split in sizes}

    def _part(self, library: Any, split: str) -> Any:
        """The table of one of our splits."""
        sizes = self._catalogue(library).sizes
        held_out = split != "test" and _theirs("validation", sizes) is None
        theirs = _theirs("train" if held_out else split, sizes)
        assert theirs is not None
        if theirs not in self._tables:
            given = {"revision": self.revision, "split": theirs}
            self._tables[theirs] = library.load_dataset(self.where, self.config, **given)
        table = self._tables[theirs]
        return table.select(hold_out(len(table))[split]) if held_out else table

    def _columns(self, features: Any) -> tuple[str, str]:
        """The columns of the images and of the labels, as the options or else the features say."""
        kinds = {name: type(feature).__name__ for name, feature in features.items()}
        labels = [n for n, kind in kinds.items() if kind == "ClassLabel"]
        whole = [n for n, f in features.items() if str(getattr(f, "dtype", "")).startswith(("int", "uint"))]
        candidates = {
            "image": [n for n, kind in kinds.items() if kind == "Image"],
            "label": labels or [n for n in whole if n in ("label", "labels")],
        }
        chosen = {}
        for role, names in candidates.items():
            if role in self.options:
                if self.options[role] not in kinds:
                    raise unknown(f"column of {self.name}", self.options[role], kinds)
                names = [self.options[role]]
            if len(names) != 1:
                known = ", ".join(f"{n} ({kind})" for n, kind in kinds.items())
                raise UserError(f"{self.name} has {len(names)} {role} columns; add ?{role}=<column>, one of: {known}")
            chosen[role] = names[0]
        return chosen["image"], chosen["label"]

    def _recipe(self, table: Any, image: str) -> images.Preprocessing:
        first = table[0][image]
        if not hasattr(first, "convert"):
            raise UserError(f"{self.name}: the column {image} holds no pictures; name one that does by ?image=<column>")
        return images.recipe(self.options, "L" if first.mode in images.GREY else "RGB")


def find(name: str, root: Path) -> Hub | None:  # noqa: ARG001
    """See `defenses.data.sources.registry`."""
    if not name.startswith("hf:"):
        return None
    head, options = images.parse(name.removeprefix("hf:"), "image", "label")
    parts = re.fullmatch(r"([^:@]+)(?::([^:@]+))?(?:@([^:@]+))?", head)
    if parts is None:
        raise UserError(f"{name} names no data set; write {FORM}")
    found = Hub(name, parts[1], parts[2], parts[3], options)
    if found.local and not Path(found.where).expanduser().is_dir():
        raise UserError(f"there is no folder {found.where}; write hf:./folder or hf:owner/name")
    if found.local and found.revision:
        raise UserError(f"{name}: a folder has no revisions; leave @{found.revision} out, its files are hashed")
    if not found.local and Path(found.where).exists():
        raise UserError(
            f"{found.where} is a folder here and a name on the hub; write hf:./{found.where} for the folder"
        )
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"{name} needs the library datasets; install it: uv sync --extra hf")
    return found


def _theirs(split: str, names: Iterable[str]) -> str | None:
    """What a split of ours is called there."""
    return next((name for name in _SPLITS[split] if name in names), None)


def _hash(folder: Path) -> str:
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and not f.name.startswith(".")]
    return revision_of({f.relative_to(folder).as_posix(): f for f in files})


@contextlib.contextmanager
def _datasets(name: str) -> Iterator[Any]:
    """The library, its log lines held back and its errors as one line."""
    datasets = importlib.import_module("datasets")
    loggers = [logging.getLogger(n) for n in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        datasets.disable_progress_bars()
        yield datasets
    except UserError:
        raise
    except Exception as error:  # of the network, the file system, Arrow, or a data set that is not what it says
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name} cannot be loaded ({type(error).__name__}: {reason}); see name, files, network"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
