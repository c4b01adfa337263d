"""Which cell comes next when several workers share them: the longest, so that no long one is left for the end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from bench.cell import NULLS, Cell


class Schedule:
    """Cells by pair of defense and attack; the pair whose cells take longest goes first.

    Pairs nobody knows about come before all others, in table order, so that soon everything is known; null attacks,
    which only judge, come last among them.

    Args:
        cells: to do, in table order.
        estimate: seconds of a cell, where known; asked anew every time.
    """

    def __init__(self, cells: Iterable[Cell], estimate: Callable[[Cell], float | None]):
        self._estimate = estimate
        self._pairs: dict[tuple[str, ...], deque[Cell]] = {}
        for cell in cells:
            self._pairs.setdefault(_pair(cell), deque()).append(cell)

    def __len__(self) -> int:
        return sum(map(len, self._pairs.values()))

    def pop(self) -> Cell | None:
        """The next cell; None when there is none."""
        if not self._pairs:
            return None
        pair = max(self._pairs, key=lambda p: self._length(self._pairs[p][0]))
        cell = self._pairs[pair].popleft()
        if not self._pairs[pair]:
            del self._pairs[pair]
        return cell

    def put_back(self, cell: Cell) -> None:
        """A cell that has to be done again."""
        self._pairs.setdefault(_pair(cell), deque()).appendleft(cell)

    def _length(self, cell: Cell) -> float:
        known = self._estimate(cell)
        if known is not None:
            return known
        return -1.0 if cell.attack.name in NULLS else math.inf


def _pair(cell: Cell) -> tuple[str, ...]:
    return (cell.defense.label, cell.attack.label, cell.view_label, str(cell.threat))
