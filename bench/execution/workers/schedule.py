"""Which cell comes next when several workers share them: the longest, so that no long one is left for the end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from bench.spec.cell import NULLS, Cell

_CHECK_ROWS = 17  # images that the check of a model sends through it, in small batches


class Schedule:
    """Cells by pair of defense and attack; the pair whose cells take longest goes first.

    Pairs nobody knows about come before all others, those of slow defenses first, so that soon everything is known.
    Null attacks only judge: what that takes follows from how long the check of the defense took.

    Args:
        cells: to do, in table order.
        estimate: seconds of a cell, where known; asked anew every time.
    """

    def __init__(self, cells: Iterable[Cell], estimate: Callable[[Cell], float | None]):
        self._estimate = estimate
        self._checks: dict[str, float] = {}
        self._pairs: dict[tuple[str, ...], deque[Cell]] = {}
        for cell in cells:
            self._pairs.setdefault(_pair(cell), deque()).append(cell)

    def __len__(self) -> int:
        return sum(map(len, self._pairs.values()))

    def learn(self, title: str, seconds: float) -> None:
        """The check of a defense took so long."""
        self._checks[title] = seconds

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

    def _length(self, cell: Cell) -> tuple[float, float]:
        known, check = self._estimate(cell), self._checks.get(cell.defense.title, 0.0)
        if known is None and cell.attack.name in NULLS:
            rows = (cell.data.stop - cell.data.start) * (cell.verdict.draws + cell.verdict.selection)
            known = check * rows / _CHECK_ROWS
        return (math.inf if known is None else known), check


def _pair(cell: Cell) -> tuple[str, ...]:
    return (cell.defense.title, cell.attack.label, cell.view_label, str(cell.threat))
