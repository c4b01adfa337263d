"""Run cells in a pool of workers, within limits of time and memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.evaluation.certificates.certificate import CertificateRecord
from bench.execution.cell_runner import one_per_defense
from bench.execution.finish_cell import Advanced, CellReport, Report, finish
from bench.execution.workers import messages
from bench.execution.workers.backend import Backend, Ending
from bench.execution.workers.held_cells import HeldCells
from bench.execution.workers.limits import GIB, Limits
from bench.execution.workers.messages import Message, TaskMessage, WorkerFailed, WorkerState
from bench.execution.workers.schedule import Schedule
from bench.execution.workers.tasks import CellTask, CertifyTask, ComputeTask, LoadTask, Task
from bench.spec.cell import Cell
from bench.store.folder import CellResult, Store
from bench.store.parts import CellRecord

_POLL_SECONDS = 0.2
_FULL = 0.7  # of its memory: a worker that holds more after a cell is replaced
_LOADING = 60.0  # seconds, at least, to load and check a model: the time limit of a cell does not count them
_GUARD = 'a script that runs boards needs `if __name__ == "__main__":` around that, as workers import it'
_STARTS = 2  # of workers that may die one after another


@dataclass(frozen=True)
class PoolCallbacks:
    """The callbacks of a run in its worker pool, with the run's limits.

    Args:
        run: id of the run.
        begin: called when all models have been checked, before the first cell, with the certificates by title and the
            titles of the defenses that return probabilities.
        report: called after every cell.
        limits: limits of each worker; a cell that exceeds one becomes an error record, as does a cell on which a worker
            dies twice.
        estimate: returns the seconds of a cell; None where unknown.
        prepared: called after every check and every certificate of a defense, "check" or "certificate", and its title.
        advanced: called with a cell's key and the share that is done: 0 when it begins, then now and then.
    """

    run: str
    begin: Callable[[Mapping[str, CertificateRecord], set[str]], None]
    report: Report
    limits: Limits
    estimate: Callable[[Cell], float | None]
    prepared: Callable[[str, str], None] = lambda *_: None
    advanced: Advanced = lambda *_: None


@dataclass
class _Worker:
    """Worker of the pool: its present task, if any, its state, and the begin of that by `time.monotonic`."""

    number: int
    task: Task | None = None
    state: WorkerState = WorkerState.START
    since: float = 0.0

    def enter(self, state: WorkerState) -> None:
        """Begin a state."""
        self.state, self.since = state, time.monotonic()


class WorkerPool:
    """The workers of a run, and the tasks left.

    Args:
        backend: starts the workers; the caller ends those that are left.
        store: where results go.
        callbacks: callbacks and limits.
        pending: cells to run, the longest first.
        redo: by key, the records that do not count as finished.
        certified: titles of the defenses that need a gradient certificate.
        held: locks cells and stores their results; None: the workers do.
    """

    def __init__(
        self,
        backend: Backend,
        store: Store,
        callbacks: PoolCallbacks,
        pending: Sequence[Cell],
        redo: Mapping[str, CellRecord],
        certified: Container[str],
        held: HeldCells | None = None,
    ):
        self.backend, self.store, self.callbacks, self.redo, self._held = backend, store, callbacks, redo, held
        # The last task is taken first: the checks of stochastic defenses take longest.
        cells = sorted(one_per_defense(pending), key=lambda cell: cell.defense.stochastic)
        self._ready: list[Task] = [LoadTask(cell) for cell in cells]
        self._certifications = [CertifyTask(cell) for cell in cells if cell.defense.title in certified]
        self._schedule = Schedule(pending, callbacks.estimate)
        self._busy: list[Cell] = []  # cells that another run is running
        self._begun = False
        self._certificates: dict[str, CertificateRecord] = {}  # by title
        self._softmax: set[str] = set()
        self._workers: dict[int, _Worker] = {}
        self._size = 1
        self._deaths: Counter[str] = Counter()  # by name of the task; "": without one

    def run(self, size: int) -> None:
        """Run all tasks with `size` workers.

        Raises:
            UserError: bad input, as a model that cannot be benchmarked.
            WorkerFailed: a fault of purebench in a worker.
        """
        self._size = size
        while left := self._left() + len(self._at_work()):
            while len(self._workers) < min(size, left):
                number = self.backend.start()
                self._workers[number] = _Worker(number)
            for worker in list(self._workers.values()):
                self._replace_if_full(worker)
            for worker in self._workers.values():
                if worker.state is not WorkerState.START and worker.task is None and (task := self._next()) is not None:
                    worker.task = task
                    worker.enter(WorkerState.LOAD)
                    self.backend.send(worker.number, task)
            for number, message in self.backend.receive(_POLL_SECONDS):
                if (sender := self._workers.get(number)) is not None:
                    self._on_message(sender, message)
            for worker in self._at_work():
                if (problem := self._exceeded_limit(worker)) and worker.task is not None:
                    trace = self._end(worker, trace=True).trace
                    self._on_answer(worker, worker.task, worker.task.on_timeout(problem, trace))

    def _left(self) -> int:
        return len(self._ready) + len(self._certifications) + len(self._schedule) + len(self._busy)

    def _at_work(self) -> list[_Worker]:
        """Return the workers that have a task."""
        return [worker for worker in self._workers.values() if worker.task is not None]

    def _next(self) -> Task | None:
        """Return the next task; None where there is none now. Checks end before certificates, these before cells."""
        if not self._begun and not self._ready:
            if self._at_work():
                return None
            self._ready, self._certifications = [*self._certifications], []
            if not self._ready:
                self._begun = True
                self.callbacks.begin(self._certificates, self._softmax)
        if self._ready:
            return self._ready.pop()
        while (cell := self._schedule.pop()) is not None:
            if (task := self._cell_task(cell, wait=False)) is not None:
                return task
        return self._cell_task(self._busy.pop(0), wait=True) if self._busy else None

    def _cell_task(self, cell: Cell, *, wait: bool) -> Task | None:
        """Return the task of a cell; None if another run is running it, or has, where the pool stores results."""
        if self._held is None:
            return CellTask(cell, self.redo.get(cell.key), wait=wait)
        match self._held.hold(cell):
            case True:
                return ComputeTask(cell)
            case False:
                self._busy.append(cell)
            case CellReport() as report:
                self.callbacks.report(report)
        return None

    def _on_message(self, worker: _Worker, message: Message) -> None:
        """Handle a message; one about a task that the worker no longer has is none."""
        task = worker.task
        match message:
            case messages.Ready():
                self._deaths.pop("", None)
                worker.enter(WorkerState.WAIT)
            case messages.Failed(error):
                raise error
            case messages.Died():
                self._on_death(worker)
            case messages.Advanced(key, share):
                if task is not None and task.cell.key == key:
                    self.callbacks.advanced(key, share)
            case TaskMessage(name) if task is None or task.name != name:
                return
            case messages.Entered(state=state):
                worker.enter(state)
            case TaskMessage() if task is not None:
                self._on_answer(worker, task, message)

    def _on_answer(self, worker: _Worker, task: Task, answer: TaskMessage) -> None:
        """End a task with an answer, of the worker or in its place."""
        worker.task = None
        title = task.cell.defense.title
        match answer:
            case messages.Busy():
                self._busy.append(task.cell)
            case messages.Checked(_, seconds, softmax):
                self._softmax |= {title} if softmax else set()
                self._schedule.learn(title, seconds)
                self.callbacks.prepared("check", title)
            case messages.Certified(_, certificate):
                self._certificates[title] = certificate
                self.callbacks.prepared("certificate", title)
            case messages.Finished(_, report):
                self.callbacks.report(report)
            case messages.Computed(_, result, seconds):
                self._keep(task.cell, result, seconds)
            case messages.Unfinished(_, problem, trace):
                self._record(task.cell, time.monotonic() - worker.since, problem, trace)

    def _replace_if_full(self, worker: _Worker) -> None:
        """End a worker that holds too much memory after a cell."""
        if worker.task is not None or worker.state is not WorkerState.WORK or self.callbacks.limits.memory is None:
            return
        worker.enter(WorkerState.WAIT)
        if self.backend.memory(worker.number) > _FULL * self.callbacks.limits.memory * GIB:
            self._end(worker, trace=False)

    def _exceeded_limit(self, worker: _Worker) -> str | None:
        """Return the limit that a worker at a task exceeds, for the user; None where it keeps to them."""
        limits = self.callbacks.limits
        if worker.state is WorkerState.WAIT:
            return None
        if limits.seconds is not None:
            loading = worker.state is WorkerState.LOAD
            limit = max(_LOADING, limits.seconds) if loading else limits.seconds
            if time.monotonic() - worker.since > limit:
                step = "loading the model" if loading else "the cell"
                return f"{step} took longer than {limit:g} s (--time-limit); raise it and add --retry-errors"
        if limits.memory is not None and self.backend.memory(worker.number) > limits.memory * GIB:
            return (
                f"the worker took more than {limits.memory:.3g} GiB of memory (--memory); "
                "raise it or use fewer workers, and add --retry-errors"
            )
        return None

    def _on_death(self, worker: _Worker) -> None:
        """Handle the death of a worker: its task is tried again, as often as the task allows."""
        cause, trace, lost = self._end(worker, trace=False)
        task = worker.task
        name = "" if task is None else task.name
        if worker.state is not WorkerState.WAIT:  # a waiting worker tried nothing
            self._deaths[name] += 1
        if task is None:
            allowed = _STARTS * self._size if lost else _STARTS
            if worker.state is WorkerState.START and self._deaths[""] >= allowed:
                raise WorkerFailed(f"workers die at their start ({cause})" + ("" if lost else f"; {_GUARD}"))
        elif self._deaths[name] < task.attempts:
            self._ready.append(task)
        else:
            self._on_answer(worker, task, task.on_death(cause, trace))

    def _end(self, worker: _Worker, *, trace: bool) -> Ending:
        """End a worker, and remove it from the pool; `Backend.stop` has the arguments."""
        del self._workers[worker.number]
        return self.backend.stop(worker.number, trace=trace)

    def _record(self, cell: Cell, seconds: float, problem: str, trace: str | None) -> None:
        """Store the failure of a cell, unless another run is running it now."""
        if self._held is not None:
            self._keep(cell, CellResult.failure(cell, problem, trace), seconds)
            return
        with self.store.lock(cell.key) as acquired:
            if not acquired:
                self._busy.append(cell)
                return
            failure = CellResult.failure(cell, problem, trace)
            report = finish(self.store, cell, lambda _: failure, self.callbacks.run, self.redo.get(cell.key))
            self.callbacks.report(replace(report, seconds=None if report.seconds is None else seconds))

    def _keep(self, cell: Cell, result: CellResult, seconds: float) -> None:
        """Store the result of a cell that the pool holds."""
        assert self._held is not None
        self.callbacks.report(replace(self._held.keep(cell, result), seconds=seconds))
