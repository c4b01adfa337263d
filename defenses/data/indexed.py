"""Images of a split by position, so that only those that are used are in memory as float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from defenses.data.stamps import Stamp, opened
from defenses.utils.arrays import F32, U8

Shape = tuple[int, int, int]  # C, H, W


class IndexedImages(Protocol):
    """Images of a split, read when they are asked for."""

    @property
    def shape(self) -> Shape:
        """Return (C, H, W)."""

    def at(self, positions: Sequence[int]) -> F32:
        """Return the images at some positions, float32 [B, C, H, W] in [0, 1].

        Raises:
            UnreadableImage: one cannot be decoded (`defenses.data.pictures`).
            UserError: a file has changed, or an image is none of the data set's shape and range.
        """


@dataclass(frozen=True)
class Storage:
    """The order of axes and the value of white of stored images.

    Args:
        shape: (C, H, W).
        channels_last: they are stored as [N, H, W, C].
        white: the stored value of white; 1: floats, which are taken as they are.
    """

    shape: Shape
    channels_last: bool = False
    white: float = 255

    def to_float(self, stored: npt.NDArray[Any]) -> F32:
        """Return stored images as float32 [N, C, H, W] in [0, 1]; contiguous float32 as it is."""
        if self.channels_last:
            stored = stored.transpose(0, 3, 1, 2)
        out = np.ascontiguousarray(stored.reshape(-1, *self.shape), dtype=np.float32)
        if self.white != 1:
            out /= np.float32(self.white)
        return out


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images in memory, as they were stored: see `IndexedImages`."""

    array: npt.NDArray[Any]
    storage: Storage

    @classmethod
    def of_bytes(cls, array: U8, white: float = 255) -> StoredImages:
        """Return images stored as whole numbers from 0 to `white`, [N, C, H, W]."""
        return cls(array, Storage(array.shape[1:], white=white))

    @property
    def shape(self) -> Shape:
        """Return (C, H, W)."""
        return self.storage.shape

    def at(self, positions: Sequence[int]) -> F32:
        """Return the images at some positions."""
        whole = isinstance(positions, range) and positions == range(len(self.array))
        return self.storage.to_float(self.array if whole else self.array[np.asarray(positions, np.int64)])


@dataclass(frozen=True)
class MappedImages:
    """Images in a file that holds them one after another: see `IndexedImages`.

    The file is mapped at each call alone, so that pages that were read do not stay in memory.

    Args:
        path: the file.
        stamp: of the file.
        start: bytes before the first image.
        dtype: of the values.
        stored: shape of the array in the file, [N, ...].
        fortran: the first axis varies fastest.
        storage: of the images.
    """

    path: Path
    stamp: Stamp
    start: int
    dtype: np.dtype[Any]
    stored: tuple[int, ...]
    fortran: bool
    storage: Storage

    @property
    def shape(self) -> Shape:
        """Return (C, H, W)."""
        return self.storage.shape

    def at(self, positions: Sequence[int]) -> F32:
        """Return the images at some positions."""
        with opened(self.path, self.stamp) as file:
            mapped = np.memmap(file, self.dtype, "r", self.start, self.stored, "F" if self.fortran else "C")
            return self.storage.to_float(np.asarray(mapped[np.asarray(positions, np.int64)]))


@dataclass(frozen=True)
class SelectedImages:
    """Some of other images, in an order of their own: see `IndexedImages`."""

    base: IndexedImages
    positions: Sequence[int]

    @property
    def shape(self) -> Shape:
        """Return (C, H, W)."""
        return self.base.shape

    def at(self, positions: Sequence[int]) -> F32:
        """Return the images at some positions."""
        return self.base.at([self.positions[i] for i in positions])
