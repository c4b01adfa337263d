"""Reader of an .npz file with a user's own images, which is not trusted."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from defenses.data.formats import (
    Layout,
    as_labels,
    check_range,
    layout_of,
    storage_of,
    stored_images,
    tell_if_dark,
)
from defenses.data.indexed import IndexedImages, MappedImages
from defenses.data.sources.base import SPLIT_ALIASES
from defenses.data.stamps import opened, stamp_of
from defenses.utils.arrays import I64
from defenses.utils.errors import UserError

SPLITS = ("train", "validation", "test")
_LOCAL_HEADER = "<4s5H3L2H"  # of a member of a zip
_PIECE = 1 << 22  # bytes read at once


def npz_keys(path: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """Return the names of the image and label arrays of every split in an .npz.

    Args:
        path: the file, for the message.
        names: of its arrays.

    Returns:
        {split: (images' name, labels' name)}. A file with plain `x` and `y` is a test split.

    Raises:
        UserError: no images with labels are among them.
    """
    keys: dict[str, tuple[str, str]] = {}
    for split, aliases in SPLIT_ALIASES.items():
        for end in (*(f"_{alias}" for alias in aliases), *([""] if split == "test" else [])):
            x = next((n + end for n in ("x", "images") if n + end in names), None)
            y = next((n + end for n in ("y", "labels") if n + end in names), None)
            if x and y and split not in keys:
                keys[split] = (x, y)
    if not keys:
        raise UserError(f"{path} holds {', '.join(names) or 'no array'}; name its arrays x and y, or x_train...")
    return keys


class NpzFile:
    """An .npz file with a user's own images; arrays are read when they are needed.

    Args:
        path: the file.

    Raises:
        UserError: here and in all methods: the file is missing, damaged, or without images and labels.
    """

    def __init__(self, path: Path):
        self.path = path
        if not path.is_file():
            raise UserError(f"{path} is missing; give the path of an .npz with arrays x and y")
        self.stamp = stamp_of(path)
        try:
            with zipfile.ZipFile(path) as archive:
                names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        except (zipfile.BadZipFile, OSError):
            raise UserError(f"{path} is truncated or no .npz file; save it again with numpy.savez") from None
        self.keys = npz_keys(path, names)
        self.counts_classes = "num_classes" in names
        self.layout: Layout | None = layout_of(str(self._array("layout")), str(path)) if "layout" in names else None

    def shape(self, split: str) -> tuple[int, ...]:
        """Return the shape of a split's images as stored, from the header alone."""
        name = self.keys[split][0]
        with self._reading(name), self._member(name) as f:
            return _header(f)[0]

    def _array(self, name: str) -> npt.NDArray[Any]:
        with self._reading(name), np.load(self.path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])

    @contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        """Open an array in the archive, which compares its checksum at the end."""
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as f:
            yield f

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Turn the errors of a damaged array into one line."""
        try:
            yield
        except (zipfile.BadZipFile, ValueError, EOFError, OSError, MemoryError, zlib.error):
            raise self._damaged(name) from None

    def _damaged(self, name: str) -> UserError:
        return UserError(f"{self.path}: {name} is damaged or no plain numeric array; save it again with numpy.savez")

    def labels(self, split: str) -> I64:
        """Return a split's labels, int64 [N], none negative."""
        name = self.keys[split][1]
        return as_labels(self._array(name), f"{self.path}: {name}")

    def num_classes(self) -> int:
        """Return K: the array `num_classes` if the file has it, else the highest label of all splits plus one."""
        highest = max(int(self.labels(s).max(initial=-1)) for s in self.keys)
        stated = self._array("num_classes").reshape(-1) if self.counts_classes else None
        if stated is None:
            return highest + 1
        if len(stated) != 1 or stated.dtype.kind not in "iu" or int(stated[0]) <= highest:
            raise UserError(f"{self.path}: num_classes must be one whole number above the highest label, {highest}")
        return int(stated[0])

    def images(self, split: str) -> IndexedImages:
        """Return a split's images, from uint8 or from numbers in [0, 1]; those of `numpy.savez` stay in the file."""
        name = self.keys[split][0]
        title = f"{self.path}: {name}"
        start = self._start(name)
        if start is None:
            return stored_images(self._array(name), title, self.layout)
        with self._reading(name), self._member(name) as f:
            shape, fortran, dtype = _header(f)
            start += f.tell()
        storage = storage_of(shape, dtype, title, self.layout)
        low, high = self._extremes(name)
        check_range(dtype, low, high, title)
        tell_if_dark(dtype, high, title)
        return MappedImages(self.path, self.stamp, start, dtype, shape, fortran, storage)

    def _start(self, name: str) -> int | None:
        """Return where an array's header begins in the file; None where it is compressed."""
        with self._reading(name), opened(self.path, self.stamp) as file, zipfile.ZipFile(file) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type != zipfile.ZIP_STORED:
                return None
            file.seek(member.header_offset)
            local = struct.unpack(_LOCAL_HEADER, file.read(struct.calcsize(_LOCAL_HEADER)))
            return file.tell() + int(local[-2]) + int(local[-1])  # the file's name and the extra field come between

    def _extremes(self, name: str) -> tuple[Any, Any]:
        """Return the least and the highest value of an array, which is read in pieces and compared with its checksum.

        Raises:
            UserError: it is damaged.
        """
        low, high = [], []
        with self._reading(name), self._member(name) as f:
            shape, _, dtype = _header(f)
            size, done = math.prod(shape) * dtype.itemsize, 0
            while piece := f.read(_PIECE - _PIECE % dtype.itemsize):
                values = np.frombuffer(piece, dtype)
                low.append(values.min())
                high.append(values.max())
                done += len(piece)
            if done != size:
                raise EOFError
        return np.min(low), np.max(high)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order (True: the first axis varies fastest) and type of an array, from the begin of its .npy.

    Raises:
        ValueError: it is damaged, or holds objects.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("objects")
    return tuple(shape), bool(fortran), dtype
