"""Several processes at one board: each gets cells from its parent, which ends those that go over a limit."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board.board import Board
from bench.evaluation.certificates.stored import failed
from bench.execution.cell_runner import CellRecord, Report, finish, one_per_defense
from bench.execution.records import failure
from bench.execution.workers.limits import GIB, Limits
from bench.execution.workers.process import (
    WorkerProcess,
    end,
    end_all,
    exit_reason,
    resident,
    thread_pools,
    worker_factory,
)
from bench.execution.workers.schedule import Schedule
from bench.execution.workers.worker import Task, WorkerFailed
from bench.spec.cell import Cell
from bench.store.folder import Store
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from bench.execution.options import Options

__all__ = ["WorkerFailed", "run_workers"]

_LOOK = 0.2  # seconds between two looks at the workers
_FULL = 0.7  # of its memory: a worker that holds more after a cell is replaced
_LOADING = 60.0  # seconds, at least, to load and check a model: the time limit of a cell is for its work


@dataclass(frozen=True)
class PoolCallbacks:
    """What a run wants of its workers.

    Args:
        run: id of the run.
        begin: is called when all models have been checked, before the first cell, with the certificates by title and
            the titles of the defenses that return probabilities.
        certified: titles of the defenses that need a gradient certificate.
        report: is told every cell that is finished.
        redo: by key, the records that do not count as finished.
        limits: of each worker; a cell that goes over one becomes an error record. So does one at which a worker
            dies twice.
        estimate: seconds of a cell, where known.
    """

    run: str
    begin: Callable[[Mapping[str, CellRecord], set[str]], None]
    certified: frozenset[str]
    report: Report
    redo: Mapping[str, CellRecord]
    limits: Limits
    estimate: Callable[[Cell], float | None]


@dataclass
class _WorkerPool:
    """The workers of a run, and what is left to do."""

    hire: Callable[[], WorkerProcess]
    store: Store
    orders: PoolCallbacks
    schedule: Schedule
    checks: list[Task]
    proofs: list[Task]
    hands: list[WorkerProcess] = field(default_factory=list)
    busy: list[Cell] = field(default_factory=list)  # at work in another run
    deaths: dict[str, int] = field(default_factory=dict)
    begun: bool = False
    certificates: dict[str, CellRecord] = field(default_factory=dict)
    softmax: set[str] = field(default_factory=set)

    def work(self, size: int) -> None:
        """Do everything with `size` workers."""
        while self._left() or any(hand.task for hand in self.hands):
            while len(self.hands) < min(size, self._left() + sum(hand.task is not None for hand in self.hands)):
                self.hands.append(self.hire())
            for hand in list(self.hands):
                self._replace_if_full(hand)
            for hand in self.hands:
                if hand.phase != "start" and hand.task is None and (task := self._next()) is not None:
                    hand.task = task
                    hand.enter("load")
                    with suppress(BrokenPipeError):  # it is dead, which shows below
                        hand.pipe.send(task)
            self._listen()
            for hand in list(self.hands):
                if problem := self._over_a_limit(hand):
                    self._stop(hand, problem)

    def _left(self) -> int:
        return len(self.checks) + len(self.proofs) + len(self.schedule) + len(self.busy)

    def _next(self) -> Task | None:
        """The next task; bad models stop the run before any work is done."""
        for kind, tasks in (("check", self.checks), ("certify", self.proofs)):
            if tasks:
                return tasks.pop()
            if any(hand.task and hand.task.kind == kind for hand in self.hands):
                return None
        if not self.begun:
            self.begun = True
            self.orders.begin(self.certificates, self.softmax)
        cell = self.schedule.pop()
        if cell is not None:
            return Task("cell", cell, self.orders.redo.get(cell.key))
        if self.busy:
            cell = self.busy.pop(0)
            return Task("cell", cell, self.orders.redo.get(cell.key), wait=True)
        return None

    def _listen(self) -> None:
        """Hear what workers say, and see which have died."""
        channels: list[Any] = [hand.pipe for hand in self.hands] + [hand.process.sentinel for hand in self.hands]
        found = wait(channels, timeout=_LOOK)
        for hand in list(self.hands):
            try:
                while hand.pipe in found and hand.pipe.poll():
                    self._on_message(hand, hand.pipe.recv())
            except (EOFError, OSError):  # it is gone, maybe in mid-word
                self._on_exit(hand)
            else:
                if hand.process.sentinel in found and not hand.pipe.poll():
                    self._on_exit(hand)

    def _on_message(self, hand: WorkerProcess, message: Any) -> None:
        if isinstance(message, Exception):
            raise message
        match message:
            case ("ready",):
                self.deaths.pop("start", None)
                hand.enter("wait")
            case ("loaded",):
                hand.enter("wait")
            case ("began",):
                hand.enter("work")
            case ("busy",):
                assert hand.task is not None
                self.busy.append(hand.task.cell)
                hand.task = None
            case ("checked", title, seconds, softmax):
                hand.task = None
                self.softmax |= {title} if softmax else set()
                self.schedule.learn(title, seconds)
            case ("certified", title, certificate):
                hand.task = None
                self.certificates[title] = certificate
            case ("done", *words):
                hand.task = None
                self.orders.report(*words)

    def _replace_if_full(self, hand: WorkerProcess) -> None:
        """What a cell has left in memory must not stop the next one."""
        if hand.task is not None or hand.phase != "work" or self.orders.limits.memory is None:
            return
        hand.enter("wait")
        if resident(hand.process.pid) > _FULL * self.orders.limits.memory * GIB:
            end(hand, ask=False)
            self.hands.remove(hand)

    def _over_a_limit(self, hand: WorkerProcess) -> str | None:
        limits = self.orders.limits
        if hand.task is None or hand.phase == "wait":
            return None
        if limits.seconds is not None:
            loading = hand.phase == "load"
            most = max(_LOADING, limits.seconds) if loading else limits.seconds
            if time.monotonic() - hand.since > most:
                what = "loading the model" if loading else "the cell"
                return f"{what} took longer than {most:g} s (--time-limit); raise it and add --retry-errors"
        if limits.memory is not None and resident(hand.process.pid) > limits.memory * GIB:
            return (
                f"the worker took more than {limits.memory:.3g} GiB of memory (--memory); "
                "raise it or use fewer workers, and add --retry-errors"
            )
        return None

    def _stop(self, hand: WorkerProcess, problem: str) -> None:
        trace = end(hand, ask=True)
        self.hands.remove(hand)
        assert hand.task is not None
        if hand.task.kind == "certify":  # what stops a certificate stops the cells, which will say so
            self.certificates[hand.task.cell.defense.title] = failed(problem)
            return
        if hand.task.kind == "check":
            raise UserError(f"{hand.task.cell.defense.title}: {problem}")
        self._record(hand, hand.task.cell, problem, trace)

    def _on_exit(self, hand: WorkerProcess) -> None:
        """A worker died: its task is tried once more, by another."""
        trace = end(hand, ask=False)
        self.hands.remove(hand)
        how = exit_reason(hand.process.exitcode)
        task = hand.task
        name = "start" if task is None else f"{task.kind} {task.cell.key}"
        if hand.phase != "wait":  # else nothing was tried
            self.deaths[name] = self.deaths.get(name, 0) + 1
        again = self.deaths.get(name, 0) < 2
        if task is None:
            if hand.phase == "start" and not again:
                raise WorkerFailed(f"worker processes die at their start ({how})")
        elif task.kind == "certify":
            self.certificates[task.cell.defense.title] = failed(f"the worker died ({how})")
        elif task.kind == "check":
            if not again:
                raise UserError(f"{task.cell.defense.title}: the worker died ({how}) twice while the model was checked")
            self.checks.append(task)
        elif again:
            self.schedule.put_back(task.cell)
        else:
            self._record(hand, task.cell, f"the worker died ({how}) twice at this cell", trace)

    def _record(self, hand: WorkerProcess, cell: Cell, problem: str, trace: str | None) -> None:
        """Put down what stopped a cell, unless another run is at it now."""
        seconds = time.monotonic() - hand.since
        with self.store.lock(cell.key) as mine:
            if not mine:
                self.busy.append(cell)
                return

            def report(key: str, status: str, own: float | None, note: str | None) -> None:
                self.orders.report(key, status, None if own is None else seconds, note)

            before = self.orders.redo.get(cell.key)
            finish(self.store, cell, lambda c: failure(c, problem, trace), self.orders.run, report, before)


def run_workers(board: Board, store: Store, pending: list[Cell], options: Options, orders: PoolCallbacks) -> None:
    """Do cells in `options.workers` processes, the longest first.

    Args:
        board: what is run.
        store: where results go.
        pending: what to do.
        options: how.
        orders: what the run wants.

    Raises:
        UserError: bad input, as a model that cannot be benchmarked.
        WorkerFailed: anything else that went wrong in a worker.
    """
    # The last is taken first: defenses that draw take longest to check.
    cells = sorted(one_per_defense(pending), key=lambda cell: cell.defense.stochastic)
    with tempfile.TemporaryDirectory() as scratch, thread_pools(board.threads):
        hire = worker_factory(board, store.folder, options, orders.run, Path(scratch), memory=orders.limits.memory)
        schedule = Schedule(pending, orders.estimate)
        proofs = [Task("certify", cell) for cell in cells if cell.defense.title in orders.certified]
        crew = _WorkerPool(hire, store, orders, schedule, [Task("check", cell) for cell in cells], proofs)
        try:
            crew.work(options.workers)
        finally:
            end_all(crew.hands)
