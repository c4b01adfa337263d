"""Retry with smaller batches on out-of-memory errors, of a GPU or of the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from defenses.core.defense import Defense, UserModule

# of torch, its libraries and numpy
_MESSAGES = ("out of memory", "not enough memory", "allocate memory", "Unable to allocate", "_STATUS_ALLOC_FAILED")

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception is an out-of-memory error, of any of torch's types and messages."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def draws_for_batch(defense: Defense) -> bool:
    """Return True for a user-defined random module, whose noise depends on the whole batch and not on its rows."""
    return isinstance(defense, UserModule) and defense.stochastic


class BatchLimit:
    """Limit of the rows in one call of a defense; none until memory runs out.

    Args:
        defense: its own limit `rows`, where it has one, is lowered too; see `batch_limit`.

    Attributes:
        limit: rows at once since memory ran out; None: it never did.
        asked: rows of the largest call so far.
    """

    def __init__(self, defense: Defense | None = None):
        self.limit: int | None = None
        self.asked = 0
        self._defense = defense if isinstance(getattr(defense, "rows", None), int) else None

    def ran_out(self, error: BaseException, rows: int) -> bool:
        """Halve the limit if `error` is an out-of-memory error of more than one row.

        Args:
            error: that was raised.
            rows: of the call that raised it.

        Returns:
            True if the limit was halved, so that a retry may succeed.
        """
        rows = rows if self.limit is None else min(rows, self.limit)
        if rows <= 1 or not is_out_of_memory(error):
            return False
        self.limit = rows // 2
        if self._defense is not None:
            self._defense.rows = min(self._defense.rows, self.limit)  # type: ignore[assignment,type-var]
        return True

    def in_pieces(
        self, do: Callable[[slice], T], pieces: list[slice], *, divide: bool = True
    ) -> tuple[list[T], list[slice]]:
        """Process pieces of a batch one after another, in smaller pieces where memory runs out.

        Args:
            do: processes the rows of a slice.
            pieces: in order.
            divide: a piece may be divided; False where a user-defined random module must repeat its noise.

        Returns:
            The results of `do`, and the slices they are of, both in order.
        """
        results, done, left = [], [], pieces[::-1]
        while left:
            piece = left.pop()
            rows = piece.stop - piece.start
            if divide and self.limit is not None and rows > self.limit:
                middle = piece.start + self.limit
                left += [slice(middle, piece.stop), slice(piece.start, middle)]
                continue
            try:
                results.append(do(piece))
                done.append(piece)
                continue
            except Exception as error:
                if not divide or not self.ran_out(error, rows):
                    raise
            release_cached_memory()  # the traceback, which held tensors, is gone
            left.append(piece)
        return results, done


@contextmanager
def batch_limit(defense: Defense) -> Iterator[BatchLimit]:
    """Yield the `BatchLimit` of a phase of a cell; the defense's own limit is restored on leaving."""
    before = getattr(defense, "rows", None)
    try:
        yield BatchLimit(defense)
    finally:
        if isinstance(before, int):
            defense.rows = before  # type: ignore[assignment]


def release_cached_memory() -> None:
    """Free the memory that a failed attempt still holds."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
