"""Report the progress of a run on standard error, with a forecast of its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping

from bench.execution.cell_runner import one_per_defense
from bench.execution.display import Display, bar
from bench.execution.durations import Durations
from bench.execution.finish_cell import CellReport
from bench.execution.forecast.estimates import makespan
from bench.spec.cell import Cell
from defenses.utils.text import counted, human_time

_SHORT = 0.02  # seconds; a forecast that takes no longer is always made anew
_LATE = 1.5  # times what is told, from which on it is a lower bound


class Progress:
    """The progress of a run, with a forecast from its finished cells.

    Args:
        cells: cells to run.
        workers: number of cells that run at once.
        quiet: report nothing.
        expected: expected seconds of a cell by row (see `row_of`), from earlier results or a probe.
        certificates: number of gradient certificates to measure before the first cell.
        display: where it is shown; None: standard error.
        clock: seconds.
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        *,
        workers: int,
        quiet: bool = False,
        expected: Mapping[str, float] | None = None,
        certificates: int = 0,
        display: Display | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.pending = {c.key: c for c in cells}
        self.total, self.workers, self.quiet = len(self.pending), workers, quiet
        self.durations = Durations(expected or {})
        self._clock, self.begin = clock, clock()
        self._display = Display(clock=clock) if display is None else display
        self._left = {"check": len(one_per_defense(self.pending.values())), "certificate": certificates}
        self._prepared = dict.fromkeys(self._left, 0)
        self._step_begin = self.begin
        self._running: dict[str, tuple[float, float]] = {}  # by key, begin and share of the cell that is done
        self._eta, self._next_eta, self._late = math.inf, -math.inf, False

    def prepared(self, what: str, title: str) -> None:
        """Report a step before the first cell.

        Args:
            what: "check" or "certificate".
            title: of the defense.
        """
        self._prepared[what] += 1
        done, count = self._prepared[what], self._left[what]
        if self.quiet:
            return
        name = {"check": "model", "certificate": "gradient certificate"}[what]
        if done < count:
            self._display.state(lambda: f"{name} {done} of {count}: {title}")
            return
        verb = "checked" if what == "check" else "measured"
        self._display.line(f"{counted(count, name)} {verb} in {human_time(self._clock() - self._step_begin)}")
        self._step_begin = self._clock()

    def advanced(self, key: str, share: float) -> None:
        """Report how much of a running cell is done.

        Args:
            key: of the cell.
            share: in [0, 1]; 0: it begins.
        """
        if key not in self.pending:
            return
        begin = self._running[key][0] if share > 0 and key in self._running else self._clock()
        self._running[key] = begin, share
        if not self.quiet and share > 0:
            self._display.state(self._state)

    def finished(self, report: CellReport) -> None:
        """Report a finished cell, once."""
        cell = self.pending.pop(report.key, None)
        if cell is None:
            return
        self._running.pop(report.key, None)
        status, seconds, note = report.status, report.seconds, report.note
        if seconds is not None:
            self.durations.learn(cell, seconds)
        if self.quiet:
            return
        state = "" if status == "ok" and not note else f" | {status}{': ' + note if note else ''}"
        took = "done by another process" if seconds is None else human_time(seconds)
        end = self._end() if self.pending else f"all done in {human_time(self.elapsed())}"
        where = f"images {cell.data.start}-{cell.data.stop - 1}"
        self._display.line(f"{self._count()} {_name(cell)} | {cell.view_label} | {where} | {took}{state} | {end}")

    def clear(self) -> None:
        """Remove the line on the present state, before others write."""
        self._display.clear()

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return max(0.0, self._clock() - self.begin)

    def eta(self) -> float | None:
        """Return a forecast of the remaining seconds, which never grows; None before any cell is known.

        Where cells take longer than was expected, it stands still, and lines call it a lower bound. Of many cells it is
        made anew as often as a twentieth of the time allows.
        """
        now = self._clock()
        if now < self._next_eta:
            return None if math.isinf(self._eta) else self._eta
        left = [self._remaining(cell) for cell in self.pending.values()]
        known = [seconds for seconds in left if seconds is not None]
        if len(known) == len(left):
            now_left = makespan(known, max(1, self.workers))
            self._eta = min(self._eta, now_left)
            self._late = now_left > _LATE * self._eta + 1
        took = self._clock() - now
        self._next_eta = now + 20 * took if took > _SHORT and known else now
        return None if math.isinf(self._eta) else self._eta

    def _remaining(self, cell: Cell) -> float | None:
        seconds = self.durations.forecast(cell)
        if cell.key not in self._running:
            return seconds
        begin, share = self._running[cell.key]
        elapsed = self._clock() - begin
        if seconds is not None and self.durations.expected(cell) is not None:
            return max(0.0, seconds - elapsed)
        if share > 0:
            return elapsed * (1 - share) / share
        return seconds

    def _state(self) -> str:
        running = (f"{_name(self.pending[key])} {bar(share)}" for key, (_, share) in self._running.items() if share > 0)
        return f"{self._count()} {self._end()} | {', '.join(running)}"

    def _count(self) -> str:
        return f"[{self.total - len(self.pending)}/{self.total}]"

    def _end(self) -> str:
        eta = self.eta()
        return f"ETA {'unknown' if eta is None else ('over ' if self._late else '') + human_time(eta)}"


def _name(cell: Cell) -> str:
    return f"{cell.defense.title} | {cell.attack.label}"
