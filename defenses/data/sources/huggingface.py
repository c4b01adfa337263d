"""Data sets of the Hugging Face hub or in its formats, through the library `datasets`; no code of theirs is run.

This is the only source that may download: `datasets` keeps files in its own cache and works from there without a
network (`HF_HUB_OFFLINE=1` skips the attempts).
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
from defenses.data.pictures import Pictures, first_readable
from defenses.data.sources.base import SPLIT_ALIASES, DatasetInfo, hold_out, revision_of
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from defenses.utils.arrays import I64

FORM = "hf:<owner/name or ./folder>[:<config>][@<revision>][?image=<column>&label=<column>]"


@dataclass(frozen=True)
class _Catalogue:
    """Features by column, images by split, and the revision."""

    features: Any
    sizes: dict[str, int]
    revision: str


@dataclass
class Hub:
    """A data set of the hub, or in a folder; see `defenses.data.sources.base.DataSource`."""

    name: str
    where: str
    config: str | None
    revision: str | None
    options: dict[str, str]
    _tables: dict[str, Any] = field(default_factory=dict)
    _cached_catalogue: _Catalogue | None = None

    @property
    def local(self) -> bool:
        """Return True if it is a folder of this machine."""
        return self.where.startswith(("/", ".", "~"))

    def info(self) -> DatasetInfo:
        """Return the description from metadata and one picture; tables are opened only where the metadata lack it."""
        with _datasets(self.name) as library:
            catalogue = self._catalogue(library)
            image, label = self._columns(catalogue.features)
            splits = self._splits(catalogue)
            table = self._table(library, next(s for s in ("test", "validation", "train") if s in splits))
            shape = self._pictures(table, image, "").shape
        classes = getattr(catalogue.features[label], "num_classes", None)
        if classes is None:
            classes = 1 + max(int(self.labels(split).max()) for split in splits)
        return DatasetInfo(self.name, classes, shape, catalogue.revision, splits)

    def load(self, split: str) -> tuple[Pictures[Any], I64]:
        """Return images and labels of a split."""
        with _datasets(self.name) as library:
            table = self._table(library, split)
            image, _ = self._columns(table.features)
            return self._pictures(table, image, f" {split}"), self.labels(split)

    def labels(self, split: str) -> I64:
        """Return labels of a split."""
        import numpy as np

        from defenses.data.formats import as_labels

        with _datasets(self.name) as library:
            table = self._table(library, split)
            _, label = self._columns(table.features)
            return as_labels(np.asarray(table[label][:]), f"{self.name}: {label} of {split}")

    def _catalogue(self, library: object) -> _Catalogue:
        """Return the catalogue, read once."""
        if self._cached_catalogue is None:
            self._cached_catalogue = self._open(library) if self.local else self._describe(library)
        return self._cached_catalogue

    def _describe(self, library: Any) -> _Catalogue:
        """Return the catalogue of the hub's metadata, or of the tables where the metadata are incomplete."""
        builder = library.load_dataset_builder(self.where, self.config, revision=self.revision)
        if self.revision and type(builder).__name__ == "Cache" and not builder.hash.startswith(self.revision):
            raise UserError(f"{self.name}: only revision {builder.hash} is in the cache; connect, or name that one")
        revision = f"commit-{builder.hash[:12]}"
        if not builder.info.features or not builder.info.splits:
            return replace(self._open(library), revision=revision)
        return _Catalogue(builder.info.features, {s: i.num_examples for s, i in builder.info.splits.items()}, revision)

    def _open(self, library: Any) -> _Catalogue:
        folder = Path(self.where).expanduser()
        if self.local and any((folder / f).is_file() for f in ("state.json", "dataset_dict.json")):
            opened = library.load_from_disk(str(folder))  # written by save_to_disk
        else:
            opened = library.load_dataset(
                str(folder) if self.local else self.where, self.config, revision=self.revision
            )
        self._tables |= opened if isinstance(opened, library.DatasetDict) else {"test": opened}
        sizes = {split: len(table) for split, table in self._tables.items()}
        return _Catalogue(next(iter(self._tables.values())).features, sizes, _hash(folder) if self.local else "")

    def _splits(self, catalogue: _Catalogue) -> dict[str, int]:
        """Return the images in each of train, validation and test."""
        sizes = {s: catalogue.sizes[name] for s in SPLIT_ALIASES if (name := _published_name(s, catalogue.sizes))}
        if "train" in sizes and "validation" not in sizes:
            sizes |= {split: len(at) for split, at in hold_out(sizes["train"]).items() if at}
        if not sizes:
            names = ", ".join(catalogue.sizes)
            raise UserError(f"{self.name} has the splits {names}; one must be named train, validation or test")
        return {split: sizes[split] for split in SPLIT_ALIASES if split in sizes}

    def _table(self, library: Any, split: str) -> Any:
        """Return the table of train, validation or test."""
        sizes = self._catalogue(library).sizes
        held_out = split != "test" and _published_name("validation", sizes) is None
        name = _published_name("train" if held_out else split, sizes)
        assert name is not None
        if name not in self._tables:
            options = {"revision": self.revision, "split": name}
            self._tables[name] = library.load_dataset(self.where, self.config, **options)
        table = self._tables[name]
        return table.select(hold_out(len(table))[split]) if held_out else table

    def _columns(self, features: Any) -> tuple[str, str]:
        """Return the columns of images and labels, by the options or else by the features."""
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
                columns = ", ".join(f"{n} ({kind})" for n, kind in kinds.items())
                raise UserError(f"{self.name} has {len(names)} {role} columns; add ?{role}=<column>, one of: {columns}")
            chosen[role] = names[0]
        return chosen["image"], chosen["label"]

    def _pictures(self, table: Any, image: str, split: str) -> Pictures[Any]:
        """Return the pictures of a column; `split` is for messages."""
        rows = table.select_columns([image])

        def picture(i: int) -> tuple[str, Any]:
            name = f"{self.name}{split} {i}"
            with _datasets(self.name), images.decoding(name):
                return name, rows[i][image]

        found = first_readable(picture, len(rows))[1]
        if not hasattr(found, "convert"):
            raise UserError(f"{self.name}: the column {image} holds no pictures; name one that does by ?image=<column>")
        preprocessing = images.preprocessing_of(self.options, "L" if found.mode in images.GREY else "RGB")
        return Pictures(len(rows), picture, preprocessing.convert, preprocessing.shape)


def find(name: str, _root: Path) -> Hub | None:
    """Return the source of a name "hf:..."; None if it is of another kind."""
    if not name.startswith("hf:"):
        return None
    head, options = images.parse(name.removeprefix("hf:"), "image", "label")
    parts = re.fullmatch(r"([^:@]+)(?::([^:@]+))?(?:@([^:@]+))?", head)
    if parts is None:
        raise UserError(f"{name} names no data set; write {FORM}")
    hub = Hub(name, parts[1], parts[2], parts[3], options)
    if hub.local and not Path(hub.where).expanduser().is_dir():
        raise UserError(f"there is no folder {hub.where}; write hf:./folder or hf:owner/name")
    if hub.local and hub.revision:
        raise UserError(f"{name}: a folder has no revisions; leave @{hub.revision} out, its files are hashed")
    if not hub.local and Path(hub.where).exists():
        raise UserError(f"{hub.where} is a folder here and a name on the hub; write hf:./{hub.where} for the folder")
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            f"{name} needs the library datasets; install it: pip install datasets; in a clone uv sync --extra hf"
        )
    return hub


def _published_name(split: str, names: Iterable[str]) -> str | None:
    """Return the data set's own name for train, validation or test; None if it has none."""
    return next((name for name in SPLIT_ALIASES[split] if name in names), None)


def _hash(folder: Path) -> str:
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and not f.name.startswith(".")]
    return revision_of({f.relative_to(folder).as_posix(): f for f in files})


@contextlib.contextmanager
def _datasets(name: str) -> Iterator[object]:
    """Yield the library with its log lines suppressed and its errors turned into one line."""
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
    except Exception as error:  # of the network, the file system, Arrow, or wrong metadata
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name} cannot be loaded ({type(error).__name__}: {reason}); see name, files, network"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
