"""Report the progress of a run on standard error, with a forecast of its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping

from bench.evaluation.cost import seconds_since
from bench.execution.cell_runner import CellReport
from bench.spec.cell import Cell, row_of
from defenses.utils.text import human_time


class Progress:
    """The progress of a run, with a forecast from its finished cells.

    Args:
        cells: cells to run.
        workers: number of cells that run at once.
        quiet: report nothing.
        expected: expected seconds of a cell by row (see `row_of`), from earlier results or a probe.
    """

    def __init__(
        self, cells: Iterable[Cell], *, workers: int, quiet: bool = False, expected: Mapping[str, float] | None = None
    ):
        self.pending = {c.key: c for c in cells}
        self.total, self.workers, self.quiet = len(self.pending), workers, quiet
        self.begin = time.perf_counter()
        self._expected = expected or {}
        self._seconds: dict[tuple[str, ...], tuple[float, int]] = {}

    def finished(self, report: CellReport) -> None:
        """Report a finished cell, once."""
        cell = self.pending.pop(report.key, None)
        if cell is None:
            return
        status, seconds, note = report.status, report.seconds, report.note
        if seconds is not None:
            for kind in _kinds(cell):
                total, n = self._seconds.get(kind, (0.0, 0))
                self._seconds[kind] = total + seconds, n + 1
        if self.quiet:
            return
        where = f"images {cell.data.start}-{cell.data.stop - 1}"
        name = f"{cell.defense.title} | {cell.attack.label} | {cell.view_label} | {where}"
        state = "" if status == "ok" and not note else f" | {status}{': ' + note if note else ''}"
        left = f"ETA {human_time(self.eta())}" if self.pending else f"all done in {human_time(self.elapsed())}"
        count = self.total - len(self.pending)
        took = "done by another process" if seconds is None else human_time(seconds)
        print(f"[{count}/{self.total}] {name} | {took}{state} | {left}", file=sys.stderr, flush=True)

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return seconds_since(self.begin)

    def eta(self) -> float:
        """Return the forecast of the remaining seconds, for each pending cell from the most similar finished ones."""
        total = sum(self.forecast(c) or 0.0 for c in self.pending.values())
        return total / max(1, min(self.workers, len(self.pending)))

    def expected(self, cell: Cell) -> float | None:
        """Return the mean seconds of finished cells of the same row, else the expected ones; None without either."""
        if (measured := self._seconds.get(_kinds(cell)[0])) is not None:
            return measured[0] / measured[1]
        return self._expected.get(row_of(cell))

    def forecast(self, cell: Cell) -> float | None:
        """Return the seconds of a cell by the same row, else by the most similar finished cells; None without any."""
        if (expected := self.expected(cell)) is not None:
            return expected
        measured = next((self._seconds[kind] for kind in _kinds(cell) if kind in self._seconds), None)
        return None if measured is None else measured[0] / measured[1]


def _kinds(cell: Cell) -> list[tuple[str, ...]]:
    """Return the groups of cells that a cell belongs to, from the most similar to the least."""
    view = cell.view_label
    pair = (str(cell.threat), cell.defense.label, cell.attack.label, view)
    return [pair, ("attack", cell.attack.label), ("defense", cell.defense.label), ("any",)]
