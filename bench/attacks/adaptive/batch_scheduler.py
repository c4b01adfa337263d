"""Continuous batching: whoever waits fills the next batch, and who has finished leaves.

A program holds the work items of a run, each with its own progress, and says what every one of them waits for. An item
knows nothing of its neighbours, so what comes out does not depend on how items are put together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Program(Protocol):
    """Work items that wait for answers of a defense."""

    def demand(self) -> tuple[Tensor, Tensor]:
        """(what kind of call every item waits for, how many rows it needs in it), int64 [n]; kind -1: finished."""
        ...

    def advance(self, kind: int, items: Tensor) -> None:
        """Make a call of one kind for some items, int64 [m], and take them on."""
        ...


@dataclass
class Tally:
    """What a run took: calls, rows in all calls, and rows that the calls had room for."""

    calls: int = 0
    rows: int = 0
    room: int = 0


def run(program: Program, limit: Callable[[], int]) -> Tally:
    """Run all items to their end.

    Args:
        program: the items.
        limit: tells how many rows a call may have; an item that needs more has a call of its own.
    """
    tally = Tally()
    served = torch.zeros_like(program.demand()[0])
    while True:
        kind, need = program.demand()
        waiting = kind >= 0
        if not bool(waiting.any()):
            return tally
        # The kind with most rows waiting: the others can only gather more.
        totals = torch.zeros(int(kind.max()) + 1, dtype=torch.int64).index_add(0, kind[waiting], need[waiting])
        chosen = int(totals.argmax())
        items = torch.nonzero(kind == chosen).squeeze(1)
        # Who has had least: all go on abreast, so that there is company to the end.
        items = items[served[items].argsort(stable=True)]
        rows = limit()
        fitting = int((need[items].cumsum(0) <= rows).sum())
        items = items[: max(1, fitting)].sort().values
        served[items] += 1
        program.advance(chosen, items)
        tally.calls += 1
        tally.rows += int(need[items].sum())
        tally.room += max(rows, int(need[items].sum()))
