"""Progress of a run on standard error: what is finished, and when the rest will be."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable

from bench.cell import Cell


def human_time(seconds: float) -> str:
    """Seconds as "8 s", "12 min" or "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Reports cells as they finish, with a forecast learnt from the ones before.

    Args:
        cells: the cells to do.
        workers: how many are done at once.
        quiet: report nothing.
    """

    def __init__(self, cells: Iterable[Cell], *, workers: int, quiet: bool = False):
        self.pending = {c.key: c for c in cells}
        self.total, self.workers, self.quiet = len(self.pending), workers, quiet
        self.begin = time.perf_counter()
        self._seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def finished(self, cell: Cell, status: str, seconds: float | None, note: str | None = None) -> None:
        """One cell is done; seconds is what it took, None when another process did it: that tells no forecast."""
        if self.pending.pop(cell.key, None) is None:
            return
        if seconds is not None:
            for kind in _kinds(cell):
                self._seconds[kind].append(seconds)
        if self.quiet:
            return
        where = f"images {cell.data.start}-{cell.data.stop - 1}"
        what = f"{cell.defense.label} | {cell.attack.label} | {cell.view_label} | {where}"
        state = "" if status == "ok" and not note else f" | {status}{': ' + note if note else ''}"
        left = f"ETA {human_time(self.eta())}" if self.pending else f"all done in {human_time(self.elapsed())}"
        count = self.total - len(self.pending)
        took = "done by another process" if seconds is None else human_time(seconds)
        print(f"[{count}/{self.total}] {what} | {took}{state} | {left}", file=sys.stderr, flush=True)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.begin

    def eta(self) -> float:
        """Forecast of the remaining seconds: each pending cell costs what the most similar finished ones did."""
        total = sum(self._forecast(c) for c in self.pending.values())
        return total / max(1, min(self.workers, len(self.pending)))

    def _forecast(self, cell: Cell) -> float:
        for kind in _kinds(cell):
            if self._seconds[kind]:
                return sum(self._seconds[kind]) / len(self._seconds[kind])
        return 0.0


def _kinds(cell: Cell) -> list[tuple[str, ...]]:
    """From the most alike to the least: same pair and view, same attack, same defense, any."""
    view = cell.view_label
    pair = (cell.defense.label, cell.attack.label, view)
    return [pair, ("attack", cell.attack.label), ("defense", cell.defense.label), ("any",)]
