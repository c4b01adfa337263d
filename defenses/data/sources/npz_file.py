"""Reader of an .npz file with a user's own images, which is not trusted."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from defenses.data.formats import Layout, as_images, as_labels, layout_of
from defenses.data.sources.base import SPLIT_ALIASES
from defenses.utils.arrays import I64
from defenses.utils.errors import UserError

SPLITS = ("train", "validation", "test")


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
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as f:
                version = np.lib.format.read_magic(f)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                return tuple(read(f)[0])
        except (zipfile.BadZipFile, ValueError, EOFError, OSError, MemoryError, zlib.error):
            raise self._damaged(name) from None

    def _array(self, name: str) -> npt.NDArray[Any]:
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                return np.asarray(arrays[name])
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

    def images(self, split: str) -> npt.NDArray[np.float32]:
        """Return a split's images, float32 [N, C, H, W] in [0, 1], from uint8 or from numbers in [0, 1]."""
        name = self.keys[split][0]
        return as_images(self._array(name), f"{self.path}: {name}", self.layout)
