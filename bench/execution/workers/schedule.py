"""Order the cells of a run: the longest first, so that no long cell is left for the end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from bench.spec.cell import Cell

_RENEWED = 64  # estimates that a choice may cost on average, beside those of the longest pairs
_CHECK_ROWS = 17  # images that the check of a model evaluates, in small batches


class Schedule:
    """A queue of cells by pair of defense and attack; the pair with the longest cells comes first.

    Pairs without an estimate come before all others, those of slow defenses first, so that all soon have one. Null
    attacks only judge, which is estimated from the duration of the defense's check.

    Args:
        cells: cells to run, in table order.
        estimate: returns the seconds of a cell, None where unknown; called again for every choice. Of more pairs than
            `_RENEWED`, what has become shorter counts at once, what has become longer after some choices.
    """

    def __init__(self, cells: Iterable[Cell], estimate: Callable[[Cell], float | None]):
        self._estimate = estimate
        self._checks: dict[str, float] = {}
        self._pairs: dict[tuple[str, ...], deque[Cell]] = {}
        for cell in cells:
            pair = cell.defense.title, cell.attack.label, cell.view_label, str(cell.threat)
            self._pairs.setdefault(pair, deque()).append(cell)
        self._lengths: dict[tuple[str, ...], tuple[float, float]] = {}
        self._due = len(self._pairs)  # choices times `_RENEWED` since all lengths were made

    def __len__(self) -> int:
        return sum(map(len, self._pairs.values()))

    def learn(self, title: str, seconds: float) -> None:
        """Record the seconds that the check of a defense took."""
        self._checks[title] = seconds

    def pop(self) -> Cell | None:
        """Remove and return the next cell; None where there is none."""
        if not self._pairs:
            return None
        self._due += _RENEWED
        if self._due >= len(self._pairs):
            self._lengths, self._due = {pair: self._length(cells[0]) for pair, cells in self._pairs.items()}, 0
        pair = self._longest()
        cell = self._pairs[pair].popleft()
        if not self._pairs[pair]:
            del self._pairs[pair], self._lengths[pair]
        return cell

    def _longest(self) -> tuple[str, ...]:
        """Return the pair with the longest cells, once its length is that of now."""
        while True:
            pair = max(self._lengths, key=self._lengths.__getitem__)
            before, self._lengths[pair] = self._lengths[pair], self._length(self._pairs[pair][0])
            if self._lengths[pair] >= before:
                return pair

    def _length(self, cell: Cell) -> tuple[float, float]:
        seconds, check = self._estimate(cell), self._checks.get(cell.defense.title, 0.0)
        if seconds is None and cell.attack.is_null:
            rows = (cell.data.stop - cell.data.start) * (cell.verdict.draws + cell.verdict.selection)
            seconds = check * rows / _CHECK_ROWS
        return (math.inf if seconds is None else seconds), check
