"""The protocol of sources of images, and helpers of several sources."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from defenses.data.stamps import Stamp, opened, stamp_of
from defenses.utils.errors import UserError
from defenses.utils.hints import note
from defenses.utils.paths import cache_folder

if TYPE_CHECKING:
    from defenses.data.indexed import IndexedImages
    from defenses.utils.arrays import I64


SPLIT_ALIASES: Mapping[str, tuple[str, ...]] = {  # names of the splits in files of others
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
SPLIT_NAMES = {alias: split for split, aliases in SPLIT_ALIASES.items() for alias in aliases}


def split_name(text: str) -> str:
    """Return the name of a split by any of its names, as "validation" for "val"; an unknown one as it is."""
    return SPLIT_NAMES.get(text, text)


Listing = tuple[tuple[str, str, Stamp], ...]  # names as hashed, files
_HELD_OUT = 5000  # images, at most
_LONG = 2_000_000_000  # bytes; who waits for the hash of more is told
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

    def load(self, split: str) -> tuple[IndexedImages, I64]:
        """Return the images, by position, and the labels, int64 [N], of a split that `info` lists."""

    def labels(self, split: str) -> I64:
        """Return the labels of a split, int64 [N]."""


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


def revision_of(files: Mapping[str, str | Path], stamps: Mapping[str, Stamp] | None = None) -> str:
    """Return a hash of names and contents of files, wherever they lie.

    Hashes of large files are kept in the cache folder, by names, sizes and times of change.

    Args:
        files: name (as hashed) -> file.
        stamps: of the files, by name; None: taken now.

    Raises:
        UserError: a file cannot be read, or has changed since its stamp was taken.
    """
    stamps = stamps or {name: stamp_of(path) for name, path in files.items()}
    return _revision(tuple((name, str(files[name]), stamps[name]) for name in sorted(files)))


@lru_cache(maxsize=64)
def _revision(listing: Listing) -> str:
    files = tuple((name, os.path.abspath(path), *stamp[:2], stamp.status) for name, path, stamp in listing)
    key = repr(files)
    return remembered(key, sum(stamp.size for _, _, stamp in listing), lambda: _hash(listing))


def remembered(key: str, size: int, compute: Callable[[], str]) -> str:
    """Return the hash of files, kept in the cache folder if they are large.

    Args:
        key: tells the files and when they changed.
        size: bytes of all files.
        compute: returns the hash.
    """
    if size < _REMEMBERED:
        return compute()
    cached = cache_folder() / "revisions" / hashlib.sha256(key.encode()).hexdigest()
    try:
        return cached.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        if size >= _LONG:
            note(f"reading {size / 1e9:.0f} GB of data once, for their hash, which is kept")
        revision = compute()
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        draft = cached.with_name(f"{cached.name}.{os.getpid()}")
        draft.write_text(revision, encoding="ascii")
        draft.replace(cached)
    except OSError:
        pass  # without a cache, files are hashed again
    return revision


def _hash(listing: Listing) -> str:
    whole = hashlib.sha256()
    linked: dict[Stamp, str] = {}  # a file with several names is read once
    for name, path, stamp in listing:
        digest = linked.get(stamp) if stamp.inode else None
        if digest is None:
            with opened(path, stamp) as file:
                digest = hash_of(file, path)
            if stamp.inode:
                linked[stamp] = digest
        whole.update(f"{name}\0{digest}\n".encode())
    return f"sha256-{whole.hexdigest()[:12]}"


def hash_of(file: BufferedReader, path: str | Path) -> str:
    """Return the SHA-256 of an open file; `path` is for the message."""
    try:
        return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); mend or remove it") from None
