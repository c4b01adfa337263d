"""The protocol of sources of images, and helpers of several sources."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from defenses.utils.errors import UserError
from defenses.utils.paths import cache_folder

if TYPE_CHECKING:
    import numpy.typing as npt

    from defenses.utils.arrays import F32, I64


SPLIT_ALIASES: Mapping[str, tuple[str, ...]] = {  # names of the splits in files of others
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
SPLIT_NAMES = {alias: split for split, aliases in SPLIT_ALIASES.items() for alias in aliases}


def split_name(text: str) -> str:
    """Return the name of a split by any of its names, as "validation" for "val"; an unknown one as it is."""
    return SPLIT_NAMES.get(text, text)


_HELD_OUT = 5000  # images, at most
_REMEMBERED = 50_000_000  # bytes; hashes of more are kept between commands


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a data set, without its images.

    Args:
        name: as given.
        num_classes: K; labels are 0 to K - 1.
        shape: (C, H, W).
        revision: version of the data and of its splits and order.
        splits: number of images per split.
    """

    name: str
    num_classes: int
    shape: tuple[int, int, int]
    revision: str
    splits: dict[str, int]


class DataSource(Protocol):
    """A data set whose name is resolved."""

    def info(self) -> DatasetInfo:
        """Return the description, if possible without reading images."""

    def load(self, split: str) -> tuple[F32, I64]:
        """Return images float32 [N, C, H, W] in [0, 1] and labels int64 [N] of a split that `info` lists."""

    def labels(self, split: str) -> I64:
        """Return the labels of a split, int64 [N]."""


def unit(x: npt.NDArray[Any], white: float = 255) -> F32:
    """Return whole numbers 0 to `white` as float32 in [0, 1], in one copy."""
    import numpy as np

    out: F32 = x.astype(np.float32, order="C")
    out /= np.float32(white)
    return out


def hold_out(n: int) -> dict[str, list[int]]:
    """Return train and validation positions in a training part that has no validation split.

    Validation is a tenth, at most 5,000, chosen by the sha256 of the position: files are often sorted by class, and
    then the last ones have one class.

    Args:
        n: images in the training part.

    Returns:
        {"train", "validation"}: ascending positions, each in one of the two.
    """
    by_hash = sorted(range(n), key=lambda i: hashlib.sha256(f"purebench validation {i}".encode()).digest())
    count = min(_HELD_OUT, n // 10)
    return {"train": sorted(by_hash[count:]), "validation": sorted(by_hash[:count])}


def revision_of(files: Mapping[str, Path]) -> str:
    """Return a hash of names and contents of files, wherever they lie.

    Hashes of large files are kept in the cache folder, by names, sizes and times of change.

    Args:
        files: name (as hashed) -> file.
    """
    stats = {name: path.stat() for name, path in sorted(files.items())}
    listing = tuple((name, str(files[name]), s.st_size, s.st_mtime_ns) for name, s in stats.items())
    return _revision(listing)


@lru_cache(maxsize=64)
def _revision(listing: tuple[tuple[str, str, int, int], ...]) -> str:
    if sum(size for _, _, size, _ in listing) < _REMEMBERED:
        return _hash(listing)
    cached = cache_folder() / "revisions" / hashlib.sha256(repr(listing).encode()).hexdigest()
    try:
        return cached.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        revision = _hash(listing)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        draft = cached.with_name(f"{cached.name}.{os.getpid()}")
        draft.write_text(revision, encoding="ascii")
        draft.replace(cached)
    except OSError:
        pass  # without a cache, files are hashed again
    return revision


def _hash(listing: tuple[tuple[str, str, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for name, path, _, _ in listing:
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); mend or remove it") from None
        whole.update(f"{name}\0{digest}\n".encode())
    return f"sha256-{whole.hexdigest()[:12]}"
