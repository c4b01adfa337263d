"""Progress of a run on standard error: what is finished, and when the rest will be."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping

from bench.evaluation.cost import seconds_since
from bench.spec.cell import Cell, row_of
from defenses.utils.text import human_time


class Progress:
    """Reports cells as they finish, with a forecast learnt from the ones before.

    Args:
        cells: the cells to do.
        workers: how many are done at once.
        quiet: report nothing.
        expected: seconds by row (see `row_of`) that earlier results or a probe let expect.
    """

    def __init__(
        self, cells: Iterable[Cell], *, workers: int, quiet: bool = False, expected: Mapping[str, float] | None = None
    ):
        self.pending = {c.key: c for c in cells}
        self.total, self.workers, self.quiet = len(self.pending), workers, quiet
        self.begin = time.perf_counter()
        self._expected = expected or {}
        self._seconds: dict[tuple[str, ...], tuple[float, int]] = {}

    def finished(self, cell: Cell, status: str, seconds: float | None, note: str | None = None) -> None:
        """One cell is done; seconds is what it took, None when another process did it: that tells no forecast."""
        if self.pending.pop(cell.key, None) is None:
            return
        if seconds is not None:
            for kind in _kinds(cell):
                total, n = self._seconds.get(kind, (0.0, 0))
                self._seconds[kind] = total + seconds, n + 1
        if self.quiet:
            return
        where = f"images {cell.data.start}-{cell.data.stop - 1}"
        what = f"{cell.defense.title} | {cell.attack.label} | {cell.view_label} | {where}"
        state = "" if status == "ok" and not note else f" | {status}{': ' + note if note else ''}"
        left = f"ETA {human_time(self.eta())}" if self.pending else f"all done in {human_time(self.elapsed())}"
        count = self.total - len(self.pending)
        took = "done by another process" if seconds is None else human_time(seconds)
        print(f"[{count}/{self.total}] {what} | {took}{state} | {left}", file=sys.stderr, flush=True)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return seconds_since(self.begin)

    def eta(self) -> float:
        """Forecast of the remaining seconds: each pending cell costs what the most similar finished ones did."""
        total = sum(self.forecast(c) or 0.0 for c in self.pending.values())
        return total / max(1, min(self.workers, len(self.pending)))

    def expected(self, cell: Cell) -> float | None:
        """Seconds that a cell of the same row took, or was expected to take; None when there was none."""
        if (known := self._seconds.get(_kinds(cell)[0])) is not None:
            return known[0] / known[1]
        return self._expected.get(row_of(cell))

    def forecast(self, cell: Cell) -> float | None:
        """Seconds of a cell, from the same row or the most similar finished cells; None when nothing is known."""
        if (expected := self.expected(cell)) is not None:
            return expected
        known = next((self._seconds[kind] for kind in _kinds(cell) if kind in self._seconds), None)
        return None if known is None else known[0] / known[1]


def _kinds(cell: Cell) -> list[tuple[str, ...]]:
    """From the most alike to the least: same pair and view, same attack, same defense, any."""
    view = cell.view_label
    pair = (str(cell.threat), cell.defense.label, cell.attack.label, view)
    return [pair, ("attack", cell.attack.label), ("defense", cell.defense.label), ("any",)]
