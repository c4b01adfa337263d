"""Tell how much of a running cell is done, from the queries of its attack."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.execution.evaluations import attack_evaluations, calls, evaluations
from bench.spec.cell import Cell

_APART = 1.0  # seconds between two reports, so that they cost nothing
_MOST = 0.99  # of the attack, before it has ended

Advance = Callable[[float], None]


def watch_of(cell: Cell, advance: Advance) -> Callable[[int], None] | None:
    """Return a function for the queries of a cell's attack; None where its budget is unknown.

    Args:
        cell: the cell.
        advance: called at most once a second with the share of the cell that is done, attack and verdict.
    """
    budget = calls(cell) * (cell.data.stop - cell.data.start)
    return paced(budget, advance, attack_evaluations(cell) / evaluations(cell)) if budget else None


def paced(
    budget: int, advance: Advance, whole: float = 1.0, clock: Callable[[], float] = time.monotonic
) -> Callable[[int], None]:
    """Return a function that takes the number of queries so far, and reports their share at most once a second.

    It is a plain function, which copies of a view share.

    Args:
        budget: expected number of queries, at least 1.
        advance: called with the share.
        whole: share of the cell that the attack is.
        clock: seconds.
    """
    due = clock() + _APART

    def watch(queries: int) -> None:
        nonlocal due
        if (now := clock()) >= due:
            due = now + _APART
            advance(whole * min(_MOST, queries / budget))

    return watch
