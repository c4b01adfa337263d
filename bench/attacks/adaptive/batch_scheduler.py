"""Continuous batching: waiting items fill the next batch, finished items are removed.

A program holds the work items of a run, each with separate progress, and the kind of call that each waits for. Items
are independent, so results do not depend on the composition of batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Program(Protocol):
    """Work items that wait for calls of a defense."""

    def demand(self) -> tuple[Tensor, Tensor]:
        """Return (kind of call that every item waits for, its rows in that call), int64 [n]; kind -1: finished."""
        ...

    def advance(self, kind: int, items: Tensor) -> None:
        """Make a call of one kind for some items, int64 [m], and update their progress."""
        ...


@dataclass
class CallCounts:
    """Cost of a run.

    Args:
        calls: number of calls.
        rows: of all calls together.
        room: rows that the calls had room for.
    """

    calls: int = 0
    rows: int = 0
    room: int = 0


def run(program: Program, limit: Callable[[], int]) -> CallCounts:
    """Run all items to their end, and return the cost.

    Args:
        program: the items.
        limit: returns the most rows of a call; an item that needs more gets a separate call.
    """
    counts = CallCounts()
    served = torch.zeros_like(program.demand()[0])
    while True:
        kind, need = program.demand()
        waiting = kind >= 0
        if not bool(waiting.any()):
            return counts
        # The kind with most rows waiting, so that the others gather more.
        totals = torch.zeros(int(kind.max()) + 1, dtype=torch.int64).index_add(0, kind[waiting], need[waiting])
        chosen = int(totals.argmax())
        items = torch.nonzero(kind == chosen).squeeze(1)
        # Items with fewest calls first: with equal progress, batches stay full to the end.
        items = items[served[items].argsort(stable=True)]
        rows = limit()
        fitting = int((need[items].cumsum(0) <= rows).sum())
        items = items[: max(1, fitting)].sort().values
        served[items] += 1
        program.advance(chosen, items)
        counts.calls += 1
        counts.rows += int(need[items].sum())
        counts.room += max(rows, int(need[items].sum()))
