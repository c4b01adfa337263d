"""Run the cells of a board in a pool of worker processes, within limits of time and memory."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board.board import Board
from bench.evaluation.certificates.stored import failed
from bench.execution.cell_runner import Report, finish, one_per_defense
from bench.execution.workers.limits import GIB, Limits
from bench.execution.workers.process import (
    Phase,
    WorkerProcess,
    end,
    end_all,
    exit_reason,
    resident,
    thread_pools,
    worker_factory,
)
from bench.execution.workers.schedule import Schedule
from bench.execution.workers.worker import Task, TaskKind, WorkerFailed
from bench.spec.cell import Cell
from bench.store.folder import CellResult, Store
from bench.store.parts import CellRecord
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from bench.execution.options import Options

__all__ = ["WorkerFailed", "run_workers"]

_POLL_SECONDS = 0.2
_FULL = 0.7  # of its memory: a worker that holds more after a cell is replaced
_LOADING = 60.0  # seconds, at least, to load and check a model: the time limit of a cell does not count them
_ATTEMPTS = 2  # at a task on which a worker dies


@dataclass(frozen=True)
class PoolCallbacks:
    """The callbacks of a run in its worker pool, with the run's limits.

    Args:
        run: id of the run.
        begin: called when all models have been checked, before the first cell, with the certificates by title and the
            titles of the defenses that return probabilities.
        certified: titles of the defenses that need a gradient certificate.
        report: called after every cell.
        redo: by key, the records that do not count as finished.
        limits: limits of each worker; a cell that exceeds one becomes an error record, as does a cell on which a worker
            dies twice.
        estimate: returns the seconds of a cell; None where unknown.
    """

    run: str
    begin: Callable[[Mapping[str, dict[str, Any]], set[str]], None]
    certified: frozenset[str]
    report: Report
    redo: Mapping[str, CellRecord]
    limits: Limits
    estimate: Callable[[Cell], float | None]


@dataclass
class _WorkerPool:
    """The workers of a run, and the tasks left."""

    start_worker: Callable[[], WorkerProcess]
    store: Store
    callbacks: PoolCallbacks
    schedule: Schedule
    checks: list[Task]
    certifications: list[Task]
    workers: list[WorkerProcess] = field(default_factory=list)
    busy: list[Cell] = field(default_factory=list)  # cells that another run is running
    deaths: Counter[tuple[TaskKind, str] | None] = field(default_factory=Counter)  # by task; None: without one
    begun: bool = False
    certificates: dict[str, dict[str, Any]] = field(default_factory=dict)
    softmax: set[str] = field(default_factory=set)

    def run_tasks(self, size: int) -> None:
        """Run all tasks with `size` workers."""
        while self._left() or any(worker.task for worker in self.workers):
            while len(self.workers) < min(size, self._left() + sum(w.task is not None for w in self.workers)):
                self.workers.append(self.start_worker())
            for worker in list(self.workers):
                self._replace_if_full(worker)
            for worker in self.workers:
                if worker.phase is not Phase.START and worker.task is None and (task := self._next()) is not None:
                    worker.task = task
                    worker.enter(Phase.LOAD)
                    with suppress(BrokenPipeError):  # it has died: `_listen` handles that
                        worker.pipe.send(task)
            self._listen()
            for worker in list(self.workers):
                if problem := self._exceeded_limit(worker):
                    self._stop(worker, problem)

    def _left(self) -> int:
        return len(self.checks) + len(self.certifications) + len(self.schedule) + len(self.busy)

    def _next(self) -> Task | None:
        """Return the next task; None where there is none now. All checks end before the first cell begins."""
        for kind, tasks in ((TaskKind.CHECK, self.checks), (TaskKind.CERTIFY, self.certifications)):
            if tasks:
                return tasks.pop()
            if any(worker.task and worker.task.kind is kind for worker in self.workers):
                return None
        if not self.begun:
            self.begun = True
            self.callbacks.begin(self.certificates, self.softmax)
        cell = self.schedule.pop()
        if cell is not None:
            return Task(TaskKind.RUN, cell, self.callbacks.redo.get(cell.key))
        if self.busy:
            cell = self.busy.pop(0)
            return Task(TaskKind.RUN, cell, self.callbacks.redo.get(cell.key), wait=True)
        return None

    def _listen(self) -> None:
        """Handle messages of workers, and their exits."""
        channels: list[Any] = [w.pipe for w in self.workers] + [w.process.sentinel for w in self.workers]
        ready = wait(channels, timeout=_POLL_SECONDS)
        for worker in list(self.workers):
            try:
                while worker.pipe in ready and worker.pipe.poll():
                    self._on_message(worker, worker.pipe.recv())
            except (EOFError, OSError):  # it has died, maybe within a message
                self._on_exit(worker)
            else:
                if worker.process.sentinel in ready and not worker.pipe.poll():
                    self._on_exit(worker)

    def _on_message(self, worker: WorkerProcess, message: Any) -> None:
        """Handle a message; see `bench.execution.workers.worker.serve`."""
        if isinstance(message, Exception):
            raise message
        match message:
            case ("ready",):
                self.deaths.pop(None, None)
                worker.enter(Phase.WAIT)
            case ("loaded",):
                worker.enter(Phase.WAIT)
            case ("began",):
                worker.enter(Phase.WORK)
            case ("busy",):
                assert worker.task is not None
                self.busy.append(worker.task.cell)
                worker.task = None
            case ("checked", title, seconds, softmax):
                worker.task = None
                self.softmax |= {title} if softmax else set()
                self.schedule.learn(title, seconds)
            case ("certified", title, certificate):
                worker.task = None
                self.certificates[title] = certificate
            case ("done", *report):
                worker.task = None
                self.callbacks.report(*report)

    def _replace_if_full(self, worker: WorkerProcess) -> None:
        """End a worker that holds too much memory after a cell."""
        if worker.task is not None or worker.phase is not Phase.WORK or self.callbacks.limits.memory is None:
            return
        worker.enter(Phase.WAIT)
        if resident(worker.process.pid) > _FULL * self.callbacks.limits.memory * GIB:
            self._end(worker, ask=False)

    def _exceeded_limit(self, worker: WorkerProcess) -> str | None:
        """Return the limit that a worker exceeds, for the user; None where it keeps to them."""
        limits = self.callbacks.limits
        if worker.task is None or worker.phase is Phase.WAIT:
            return None
        if limits.seconds is not None:
            loading = worker.phase is Phase.LOAD
            limit = max(_LOADING, limits.seconds) if loading else limits.seconds
            if time.monotonic() - worker.since > limit:
                step = "loading the model" if loading else "the cell"
                return f"{step} took longer than {limit:g} s (--time-limit); raise it and add --retry-errors"
        if limits.memory is not None and resident(worker.process.pid) > limits.memory * GIB:
            return (
                f"the worker took more than {limits.memory:.3g} GiB of memory (--memory); "
                "raise it or use fewer workers, and add --retry-errors"
            )
        return None

    def _stop(self, worker: WorkerProcess, problem: str) -> None:
        """End a worker that exceeds a limit, and record its task as failed."""
        trace = self._end(worker, ask=True)
        task = worker.task
        assert task is not None
        match task.kind:
            case TaskKind.CHECK:
                raise UserError(f"{task.cell.defense.title}: {problem}")
            case TaskKind.CERTIFY:  # the cells of the defense will fail likewise, and be recorded
                self.certificates[task.cell.defense.title] = failed(problem)
            case TaskKind.RUN:
                self._record(worker, task.cell, problem, trace)

    def _on_exit(self, worker: WorkerProcess) -> None:
        """Handle the death of a worker: its check or cell is tried once more."""
        trace = self._end(worker, ask=False)
        reason, task = exit_reason(worker.process.exitcode), worker.task
        name = None if task is None else (task.kind, task.cell.key)
        if worker.phase is not Phase.WAIT:  # a waiting worker tried nothing
            self.deaths[name] += 1
        again = self.deaths[name] < _ATTEMPTS
        if task is None:
            if worker.phase is Phase.START and not again:
                raise WorkerFailed(f"worker processes die at their start ({reason})")
            return
        title = task.cell.defense.title
        match task.kind:
            case TaskKind.CHECK:
                if not again:
                    raise UserError(f"{title}: the worker died ({reason}) twice while the model was checked")
                self.checks.append(task)
            case TaskKind.CERTIFY:
                self.certificates[title] = failed(f"the worker died ({reason})")
            case TaskKind.RUN if again:
                self.schedule.put_back(task.cell)
            case TaskKind.RUN:
                self._record(worker, task.cell, f"the worker died ({reason}) twice at this cell", trace)

    def _end(self, worker: WorkerProcess, *, ask: bool) -> str | None:
        """End a worker, and remove it from the pool; `end` has the arguments."""
        trace = end(worker, ask=ask)
        self.workers.remove(worker)
        return trace

    def _record(self, worker: WorkerProcess, cell: Cell, problem: str, trace: str | None) -> None:
        """Store the failure of a cell, unless another run is running it now."""
        taken = time.monotonic() - worker.since
        with self.store.lock(cell.key) as acquired:
            if not acquired:
                self.busy.append(cell)
                return

            def report(key: str, status: str, seconds: float | None, note: str | None) -> None:
                self.callbacks.report(key, status, None if seconds is None else taken, note)

            def fail(cell: Cell) -> CellResult:
                return CellResult.failure(cell, problem, trace)

            finish(self.store, cell, fail, self.callbacks.run, report, self.callbacks.redo.get(cell.key))


def run_workers(board: Board, store: Store, pending: list[Cell], options: Options, callbacks: PoolCallbacks) -> None:
    """Run cells in `options.workers` processes, the longest first.

    Args:
        board: the board.
        store: where results go.
        pending: cells to run.
        options: options of the run.
        callbacks: callbacks and limits.

    Raises:
        UserError: bad input, as a model that cannot be benchmarked.
        WorkerFailed: a fault of purebench in a worker.
    """
    # The last task is taken first: the checks of stochastic defenses take longest.
    cells = sorted(one_per_defense(pending), key=lambda cell: cell.defense.stochastic)
    checks = [Task(TaskKind.CHECK, cell) for cell in cells]
    certifications = [Task(TaskKind.CERTIFY, cell) for cell in cells if cell.defense.title in callbacks.certified]
    schedule = Schedule(pending, callbacks.estimate)
    with tempfile.TemporaryDirectory() as scratch, thread_pools(board.threads):
        memory = callbacks.limits.memory
        start_worker = worker_factory(board, store.folder, options, callbacks.run, Path(scratch), memory=memory)
        pool = _WorkerPool(start_worker, store, callbacks, schedule, checks, certifications)
        try:
            pool.run_tasks(options.workers)
        finally:
            end_all(pool.workers)
