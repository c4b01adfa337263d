"""Forecast the seconds of cells from those of finished ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bench.execution.evaluations import evaluations
from bench.spec.cell import Cell, row_of

# Forecasts by evaluations alone are made larger by this factor. On committed results they then are between 0.7 and 2
# times the truth for most of a run, and so seldom too small.
_HEADROOM = 1.5


class _Facts(NamedTuple):
    """Facts by which a cell is forecast: its row, the label of its defense, its evaluations."""

    row: str
    defense: str
    evaluations: int


class Durations:
    """Forecasts of cells: by finished cells of their row, else by earlier results, else by their evaluations.

    Args:
        expected: seconds of a cell by row (see `row_of`), from earlier results or a probe.
    """

    def __init__(self, expected: Mapping[str, float]):
        self._expected = expected
        self._facts: dict[str, _Facts] = {}  # by key
        self._rows: dict[str, tuple[float, int]] = {}  # seconds and number of cells
        self._work: dict[str, tuple[float, int]] = {}  # seconds and evaluations by label of a defense
        self._all = 0.0, 0  # and of all

    def learn(self, cell: Cell, seconds: float) -> None:
        """Take the seconds of a finished cell into account."""
        facts = self._of(cell)
        self._rows[facts.row] = _plus(self._rows.get(facts.row), seconds, 1)
        self._work[facts.defense] = _plus(self._work.get(facts.defense), seconds, facts.evaluations)
        self._all = _plus(self._all, seconds, facts.evaluations)

    def expected(self, cell: Cell) -> float | None:
        """Return the mean seconds of finished cells of the same row, else the expected ones; None without either."""
        row = self._of(cell).row
        if (measured := self._rows.get(row)) is not None:
            return measured[0] / measured[1]
        return self._expected.get(row)

    def forecast(self, cell: Cell) -> float | None:
        """Return the expected seconds of a cell, else by its evaluations, from above; None before any cell is known."""
        if (expected := self.expected(cell)) is not None:
            return expected
        facts = self._of(cell)
        seconds, done = self._work.get(facts.defense, self._all)
        return _HEADROOM * facts.evaluations * seconds / done if done else None

    def _of(self, cell: Cell) -> _Facts:
        facts = self._facts.get(cell.key)
        if facts is None:
            facts = self._facts[cell.key] = _Facts(row_of(cell), cell.defense.label, evaluations(cell))
        return facts


def _plus(sums: tuple[float, int] | None, seconds: float, n: int) -> tuple[float, int]:
    return (seconds, n) if sums is None else (sums[0] + seconds, sums[1] + n)
