"""Pictures by position, each decoded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from defenses.utils.arrays import F32

A = TypeVar("A")  # a picture as its source gives it


class UnreadableImage(UserError):
    """The error for an image with a damaged file; it concerns no other image."""


def first_readable(open_at: Callable[[int], tuple[str, A]], count: int) -> tuple[str, A]:
    """Return the first of `count` pictures that can be decoded, with its name.

    Raises:
        UnreadableImage: none can; it names the first.
    """
    errors = []
    for i in range(count):
        try:
            return open_at(i)
        except UnreadableImage as error:
            errors.append(error)
    raise errors[0]


@dataclass(frozen=True)
class Pictures(Generic[A]):
    """Pictures that are decoded when they are asked for: see `defenses.data.indexed.IndexedImages`.

    Args:
        count: N.
        open: returns a picture by position, with its name for messages.
        convert: makes it an array, float32 [C, H, W] in [0, 1].
        known: (C, H, W) of all; None: that of the first that can be decoded.
        remedy: advice where they differ in size.
    """

    count: int
    open: Callable[[int], tuple[str, A]]
    convert: Callable[[str, A], F32]
    known: tuple[int, int, int] | None = None
    remedy: str = "add ?resize=N&crop=N"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        return self.known or self._first[1]

    @cached_property
    def _first(self) -> tuple[str, tuple[int, int, int]]:
        """Name and shape of the first picture that can be decoded."""
        name, picture = first_readable(self.open, self.count)
        channels, height, width = self.convert(name, picture).shape
        return name, (channels, height, width)

    def at(self, positions: Sequence[int]) -> F32:
        """Return the pictures at some positions, which must be of one size."""
        import numpy as np

        x = np.empty((len(positions), *self.shape), np.float32)
        for row, i in enumerate(positions):
            name, picture = self.open(i)
            x[row] = self._of_size(name, self.convert(name, picture))
        return x

    def _of_size(self, name: str, image: F32) -> F32:
        """Return an image; refuse one of another size than the first."""
        if image.shape == self.shape:
            return image
        (c, high, wide), (channels, height, width) = self.shape, image.shape
        sizes = [f"{wide}x{high}", f"{width}x{height}"]
        if c != channels:
            sizes = [f"{size}x{n}" for size, n in zip(sizes, (c, channels), strict=True)]
        raise UserError(f"{self._first[0]} is {sizes[0]} and {name} is {sizes[1]} pixels; {self.remedy}")
