"""Going on with fewer rows at once when torch has run out of memory, on a GPU or on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from defenses.core.defense import Defense

_TEXTS = ("out of memory", "not enough memory", "allocate memory", "_STATUS_ALLOC_FAILED")

T = TypeVar("T")


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: torch tells it in several ways."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


class BatchLimit:
    """How many rows go through a defense at once: as many as it is given, until memory runs out.

    Args:
        defense: one that purifies `rows` images at once gets a smaller number too; see `batch_limit`.

    Attributes:
        limit: rows at once since memory ran out; None: it never did.
        asked: rows of the largest call so far.
    """

    def __init__(self, defense: Defense | None = None):
        self.limit: int | None = None
        self.asked = 0
        self._defense = defense if isinstance(getattr(defense, "rows", None), int) else None

    def ran_out(self, error: BaseException, rows: int) -> bool:
        """Halve the limit if `error` says that memory ran out and there is something to halve.

        Args:
            error: what was raised.
            rows: how many rows it happened with.

        Returns:
            Whether it is worth trying again.
        """
        rows = rows if self.limit is None else min(rows, self.limit)
        if rows <= 1 or not out_of_memory(error):
            return False
        self.limit = rows // 2
        if self._defense is not None:
            self._defense.rows = min(self._defense.rows, self.limit)  # type: ignore[assignment,type-var]
        return True

    def in_pieces(
        self, do: Callable[[slice], T], pieces: list[slice], *, divide: bool = True
    ) -> tuple[list[T], list[slice]]:
        """Do pieces of a batch one after another, smaller ones where memory runs out.

        Args:
            do: what to do with the rows of a slice.
            pieces: in order.
            divide: whether a piece may be divided; one of a random module of somebody's own may not, when its
                noise must be what it was.

        Returns:
            What `do` gave, and the pieces that were done, both in order.
        """
        given, done, left = [], [], pieces[::-1]
        while left:
            piece = left.pop()
            rows = piece.stop - piece.start
            if divide and self.limit is not None and rows > self.limit:
                middle = piece.start + self.limit
                left += [slice(middle, piece.stop), slice(piece.start, middle)]
                continue
            try:
                given.append(do(piece))
                done.append(piece)
                continue
            except Exception as error:
                if not divide or not self.ran_out(error, rows):
                    raise
            release_cached_memory()  # the traceback, which held tensors, is gone
            left.append(piece)
        return given, done


@contextmanager
def batch_limit(defense: Defense) -> Iterator[BatchLimit]:
    """The `BatchLimit` of a phase of a cell; the defense is put back as it was on leaving."""
    before = getattr(defense, "rows", None)
    try:
        yield BatchLimit(defense)
    finally:
        if isinstance(before, int):
            defense.rows = before  # type: ignore[assignment]


def release_cached_memory() -> None:
    """Give back what an attempt that ran out of memory has left."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
