"""Data sets made by a user's function, "file.py:function" or "package.module:function"."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.data.sources.base import DatasetInfo
from defenses.utils.errors import UserError
from defenses.utils.module_facades import is_importable
from defenses.utils.plugins import code_hash, forbid_exit, line_of, load_object, source_of
from defenses.utils.reads import Reads, reads_of

if TYPE_CHECKING:
    from defenses.data.indexed import IndexedImages
    from defenses.utils.arrays import I64

FORM = "<file.py or package.module>:<function>"
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class _Cached:
    info: DatasetInfo
    digests: Mapping[str, str]


@dataclass(frozen=True)
class UserDataset:
    """A data set made by a function; see `DataSource`, and `defenses.data.dataset.load_dataset` for the function."""

    name: str

    def info(self) -> DatasetInfo:
        """Return the description of what the function returns for every split, once a process."""
        return self._cached().info

    def load(self, split: str) -> tuple[IndexedImages, I64]:
        """Return images and labels of a split; refuse others than those that `info` describes."""
        found = _call(self.name, split)
        if found is None or found.digest() != self._cached().digests[split]:
            raise UserError(f'{self.name}("{split}") gives other images at every call; seed what is random in it')
        return found.images, found.labels

    def labels(self, split: str) -> I64:
        """Return labels of a split."""
        return self.load(split)[1]

    def _cached(self) -> _Cached:
        source, code = source_of(self.name.rpartition(":")[0]), code_hash(self.name)
        place = source.place if source is not None else ""
        before = _described.get((self.name, place))
        if before is not None and before[0] == code and before[1] is reads_of(place) and not before[1].changed():
            return before[2]
        described = _describe(self.name, code)
        _described[self.name, place] = (code, reads_of(place), described)
        return described


def find(name: str, _root: Path) -> UserDataset | None:
    """Return the source of "file.py:function" or "package.module:function"; None if it is of another kind."""
    where, colon, function = name.rpartition(":")
    if not colon or not function.isidentifier():
        return None
    if where.endswith(".py"):
        return UserDataset(name)
    if not all(part.isidentifier() for part in where.split(".")):
        return None
    return UserDataset(name) if source_of(where) or is_importable(where.partition(".")[0]) else None


_described: dict[tuple[str, str], tuple[str, Reads, _Cached]] = {}  # by name and place: code, files that it read


def _describe(name: str, code: str) -> _Cached:
    """Return the description and the digests of all splits that the function returns.

    Raises:
        UserError: there is none, or they do not fit together.
    """
    declared = getattr(load_object(name), "splits", _SPLITS)
    if not set(declared) <= set(_SPLITS):
        raise UserError(f'{name}.splits is {declared!r}; it may name "train", "validation" and "test"')
    digests: dict[str, str] = {}
    sizes: dict[str, int] = {}
    shapes, stated, highest = set(), set(), 0
    for split in _SPLITS:
        found = _call(name, split) if split in declared else None
        if found is None:
            continue
        digests[split], sizes[split] = found.digest(), len(found.labels)
        highest = max(highest, int(found.labels.max()))
        shapes.add(found.images.shape)
        stated.add(found.classes)
    if not sizes:
        raise UserError(f"{name} gives no split; return (x, y) for train, validation or test")
    if len(shapes) > 1 or len(stated) > 1:
        raise UserError(f"{name}: the splits differ in shape or num_classes; give all of them alike")
    classes = stated.pop() or highest + 1
    if classes <= highest:
        raise UserError(f"{name}: num_classes is {classes}, the highest label {highest}; it must be above the label")
    whole = hashlib.sha256(repr((code, sorted(digests.items()))).encode()).hexdigest()
    return _Cached(DatasetInfo(name, classes, shapes.pop(), f"sha256-{whole[:12]}", sizes), digests)


@dataclass(frozen=True, eq=False)
class _Returned:
    """Images, labels, stated number of classes and revision of a split, as the function returned them."""

    images: IndexedImages
    labels: I64
    classes: int | None
    revision: str | None

    def digest(self) -> str:
        """Return a hash of labels and images; in place of images that are not in memory, of their revision."""
        y = self.labels.astype("<i8").tobytes()
        if self.revision is not None:
            return hashlib.sha256(y + repr((self.images.shape, self.revision)).encode()).hexdigest()
        x = self.images.at(range(len(self.labels)))
        return hashlib.sha256(y + x.astype("<f4", copy=False).tobytes()).hexdigest()


def _call(name: str, split: str) -> _Returned | None:
    """Return what the function returns for a split; None if there is no such split."""
    from defenses.data.arrays import as_array
    from defenses.data.formats import as_labels, layout_of, stored_images
    from defenses.data.sources.user_images import revision_of_user, user_images

    call = f'{name}("{split}")'
    try:
        with forbid_exit():
            result = load_object(name)(split)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        reason = line_of(error)[:160]
        raise UserError(f"{call} failed ({reason}); return None for a split that it does not have") from error
    if result is None:
        return None
    classes = result.get("num_classes") if isinstance(result, Mapping) else None
    stated = result.get("layout") if isinstance(result, Mapping) else None
    if isinstance(result, Mapping):
        result = (result.get("x"), result.get("y"))
    if not isinstance(result, tuple | list) or len(result) != 2 or any(part is None for part in result):
        raise UserError(f'{call} must return (x, y), or a dict with "x", "y" and "num_classes"')
    if classes is not None and (not isinstance(classes, int) or classes < 1):
        raise UserError(f"{call}: num_classes is {classes!r}; it must be a whole number, at least 1")
    layout = None if stated is None else layout_of(str(stated), call)
    images: IndexedImages
    try:
        revision = revision_of_user(result[0], f"{call}: x")
        if revision is None:
            array = as_array(result[0])
            images, count = stored_images(array, f"{call}: x", layout), len(array)
        else:
            images, count = user_images(result[0], f"{call}: x", layout), len(result[0])
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{call}: x failed ({line_of(error)[:160]}); give an array, or an object by index") from error
    labels = as_labels(as_array(result[1]), f"{call}: y")
    if count != len(labels) or not count:
        raise UserError(f"{call} has {count} images and {len(labels)} labels; give one label per image")
    return _Returned(images, labels, classes, revision)
