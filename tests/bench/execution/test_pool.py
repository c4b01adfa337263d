"""Test the pool on backends without processes: workers that die, run out of time or memory, and answer twice."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from boards import write_board

from bench.analysis.results import load_results
from bench.board.board import Board
from bench.board.load import load_board
from bench.execution.finish_cell import CellReport
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.execution.workers.backend import Ending
from bench.execution.workers.held_cells import HeldCells
from bench.execution.workers.limits import GIB, Limits
from bench.execution.workers.messages import (
    Advanced,
    Certified,
    Checked,
    Computed,
    Died,
    Entered,
    Failed,
    Finished,
    Message,
    Ready,
    TaskMessage,
    WorkerFailed,
    WorkerState,
)
from bench.execution.workers.pool import PoolCallbacks, WorkerPool
from bench.execution.workers.session import Session, WorkerSettings
from bench.execution.workers.tasks import CellTask, CertifyTask, ComputeTask, LoadTask, Task
from bench.store.folder import CellResult, Store
from defenses.utils.errors import UserError

Answers = list[Message]
NO_LIMITS = Limits()


def answer(task: Task) -> TaskMessage:
    """The answer of a worker to which nothing happens."""
    if isinstance(task, LoadTask):
        return Checked(task.name, 1.0, softmax=False)
    if isinstance(task, CertifyTask):
        return Certified(task.name, {"passed": True})
    return Finished(task.name, CellReport(task.cell.key, "ok", 1.0, None))


class Scripted:
    """Workers that do nothing, and answer as a function of the task and the number of times that it was sent says."""

    def __init__(self, script: Callable[[Task, int], Answers] = lambda task, _: [answer(task)], held: int = 0):
        self.script, self.held = script, held
        self.messages: deque[tuple[int, Message]] = deque()
        self.started, self.stopped = 0, list[int]()
        self.sent: Counter[str] = Counter()

    def start(self) -> int:
        self.started += 1
        self.messages.append((self.started, Ready()))
        return self.started

    def send(self, worker: int, task: Task) -> None:
        self.sent[task.name] += 1
        self.messages.extend((worker, message) for message in self.script(task, self.sent[task.name]))

    def receive(self, seconds: float) -> Iterator[tuple[int, Message]]:
        while self.messages:
            yield self.messages.popleft()

    def memory(self, worker: int) -> int:
        return self.held

    def stop(self, worker: int, *, trace: bool) -> Ending:
        self.stopped.append(worker)
        return Ending("the node is gone", "the stack" if trace else None)


class Run:
    """The pool of a board of 24 cells on a scripted backend, with what it reported."""

    def __init__(
        self, folder: Path, backend: Scripted, limits: Limits = NO_LIMITS, certified: frozenset[str] = frozenset()
    ):
        self.cells = load_board(write_board(folder)).cells()
        self.backend, self.store = backend, Store(folder / "out")
        self.reports: list[CellReport] = []
        self.certificates: dict[str, object] = {}
        callbacks = PoolCallbacks(
            run="run",
            begin=lambda certificates, _: self.certificates.update(certificates),
            report=self.reports.append,
            limits=limits,
            estimate=lambda _: 1.0,
        )
        self.pool = WorkerPool(backend, self.store, callbacks, self.cells, {}, certified)

    def done(self, workers: int = 2) -> dict[str, int]:
        """Run it, and return how often each status was reported; every cell ends once."""
        self.pool.run(workers)
        assert sorted(r.key for r in self.reports) == sorted(c.key for c in self.cells)
        return dict(Counter(r.status for r in self.reports))


def test_tasks_come_in_their_order(tmp_path: Path) -> None:
    backend = Scripted()
    run = Run(tmp_path, backend, certified=frozenset({"linear"}))
    assert run.done() == {"ok": 24}
    kinds = [name.partition(" ")[0] for name in backend.sent]
    assert kinds == ["LoadTask"] * 2 + ["CertifyTask"] + ["CellTask"] * 24
    assert run.certificates == {"linear": {"passed": True}}
    assert backend.started == 2


def test_shares_of_cells_that_run_are_passed_on(tmp_path: Path) -> None:
    def script(task: Task, time: int) -> Answers:
        return [Advanced(task.cell.key, 0.5), Advanced("another", 0.5), answer(task)]

    told: list[tuple[str, object]] = []
    run = Run(tmp_path, Scripted(script), certified=frozenset({"linear"}))
    heard = {"prepared": lambda *step: told.append(step), "advanced": lambda *step: told.append(step)}
    run.pool.callbacks = replace(run.pool.callbacks, **heard)
    assert run.done() == {"ok": 24}
    steps = {("check", "linear"), ("check", "noisy"), ("certificate", "linear")}
    assert {step for step in told if step[0] in ("check", "certificate")} == steps
    assert {step for step in told if step not in steps} == {(c.key, 0.5) for c in run.cells}


def test_a_task_whose_worker_is_lost_is_tried_again(tmp_path: Path) -> None:
    backend = Scripted(lambda task, time: [Died()] if time == 1 else [answer(task)])
    assert Run(tmp_path, backend).done() == {"ok": 24}
    assert set(backend.sent.values()) == {2}
    assert len(backend.stopped) == 26


def test_a_cell_on_which_two_workers_are_lost_is_an_error(tmp_path: Path) -> None:
    backend = Scripted(
        lambda task, _: (
            [Entered(task.name, WorkerState.WORK), Died()]
            if isinstance(task, CellTask) and task.cell.attack.label == "slow" and task.cell.defense.label == "noisy"
            else [answer(task)]
        )
    )
    run = Run(tmp_path, backend)
    assert run.done() == {"ok": 21, "error": 3}
    lost = next(r for r in run.reports if r.status == "error")
    record = run.store.cell_record(lost.key)
    assert record is not None
    assert record["error"] == lost.note == "the worker died (the node is gone) twice at this cell"


@pytest.mark.parametrize(("limits", "held", "told"), [
    (Limits(seconds=0.01), 0, "the cell took longer than 0.01 s"),
    (Limits(memory=1.0), 2 * GIB, "the worker took more than 1 GiB of memory"),
])  # fmt: skip
def test_a_worker_beyond_a_limit_is_ended(tmp_path: Path, limits: Limits, held: int, told: str) -> None:
    def script(task: Task, time: int) -> Answers:
        if isinstance(task, CellTask) and task.cell.attack.label == "slow":
            return [Entered(task.name, WorkerState.WORK)]  # and no more
        return [answer(task)]

    backend = Scripted(script, held)
    run = Run(tmp_path, backend, limits)
    assert run.done() == {"ok": 18, "error": 6}
    record = run.store.cell_record(next(r.key for r in run.reports if r.status == "error"))
    assert record is not None
    assert record["error"].startswith(told)
    assert record["traceback"] == "the stack"
    assert len(backend.stopped) >= 6


def test_a_second_answer_ends_no_other_task(tmp_path: Path) -> None:
    """The second answers come when their worker has the next task, on which it then dies once."""
    late: Answers = []

    def script(task: Task, time: int) -> Answers:
        again, late[:] = [*late], [answer(task)]
        return [*again, Died()] if time == 1 else [*again, answer(task), answer(task)]

    backend = Scripted(script)
    assert Run(tmp_path, backend).done(workers=1) == {"ok": 24}
    assert set(backend.sent.values()) == {2}


def test_refusals_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(linear|noisy): the worker died \(the node is gone\) twice while the model"):
        Run(tmp_path, Scripted(lambda *_: [Died()])).done()
    with pytest.raises(WorkerFailed, match="a fault"):
        Run(tmp_path, Scripted(lambda *_: [Failed(WorkerFailed("a fault"))])).done()


def test_workers_that_never_begin_end_the_run(tmp_path: Path) -> None:
    class Stillborn(Scripted):
        def start(self) -> int:
            number = super().start()
            self.messages[-1] = number, Died()
            return number

    with pytest.raises(WorkerFailed, match="die at their start"):
        Run(tmp_path, Stillborn()).done()


class InThisProcess(Scripted):
    """Workers that are no processes."""

    def __init__(self, settings: WorkerSettings):
        super().__init__(self.run_task)
        self.session = Session(settings, lambda message: self.extra.append(message))
        self.extra: Answers = []

    def run_task(self, task: Task, _: int) -> Answers:
        last = task.run(self.session)
        said, self.extra = [*self.extra, last], []
        return said


def test_any_backend_gives_the_same_results(tmp_path: Path) -> None:
    board: Board = load_board(write_board(tmp_path, seconds=0.0))
    options, cells, reports = Options(quiet=True), board.cells(), list[CellReport]()
    run_board(board, tmp_path / "one", Options(quiet=True, workers=0))
    backend = InThisProcess(WorkerSettings(board.images, 1, tmp_path / "other", options, "run"))
    limits = Limits(seconds=600.0, memory=None)
    callbacks = PoolCallbacks("run", lambda *_: None, reports.append, limits, lambda _: None)
    WorkerPool(backend, Store(tmp_path / "other"), callbacks, cells, {}, ()).run(3)
    one, other = (load_results(tmp_path / name).sort_values(["cell", "image"]) for name in ("one", "other"))
    assert len(reports) == len(cells)
    for column in ("cell", "image", "accuracy", "linf", "status"):
        assert np.array_equal(one[column].to_numpy(), other[column].to_numpy()), column


def computed(task: Task, _: int = 1) -> Answers:
    """The answers of a worker that shares no results folder."""
    if not isinstance(task, ComputeTask):
        return [answer(task)]
    return [Computed(task.name, CellResult.failure(task.cell, "of the worker", None), 1.0)]


def held_run(folder: Path, script: Callable[[Task, int], Answers] = computed) -> Run:
    """A run whose pool stores the results."""
    run = Run(folder, Scripted(script))
    run.pool._held = HeldCells(run.store, "run", {})
    return run


def test_a_pool_stores_what_workers_without_a_folder_send(tmp_path: Path) -> None:
    board = load_board(write_board(tmp_path))
    run_board(board, tmp_path / "one", Options(quiet=True, workers=0))
    store, reports = Store(tmp_path / "other"), list[CellReport]()
    backend = InThisProcess(WorkerSettings(board.images, 1, None, Options(quiet=True), "run"))
    callbacks = PoolCallbacks("run", lambda *_: None, reports.append, NO_LIMITS, lambda _: None)
    with HeldCells(store, "run", {}) as held:
        WorkerPool(backend, store, callbacks, board.cells(), {}, (), held).run(3)
    one, other = (load_results(tmp_path / name).sort_values(["cell", "image"]) for name in ("one", "other"))
    assert len(reports) == len(board.cells())
    for column in ("cell", "image", "accuracy", "linf", "status"):
        assert np.array_equal(one[column].to_numpy(), other[column].to_numpy()), column


def test_a_cell_that_a_pool_holds_is_no_other_process_s_until_it_is_stored(tmp_path: Path) -> None:
    other = Store(tmp_path / "out")
    free: dict[str, bool] = {}

    def script(task: Task, time: int) -> Answers:
        with other.lock(task.cell.key) as acquired:
            free[task.name] = acquired
        dies = isinstance(task, ComputeTask) and time == 1
        return [Entered(task.name, WorkerState.WORK), Died()] if dies else computed(task)

    run = held_run(tmp_path, script)
    assert run.done() == {"error": 24}
    assert {name.partition(" ")[0]: acquired for name, acquired in free.items()} == {
        "LoadTask": True,
        "ComputeTask": False,
    }
    for cell in run.cells:
        with other.lock(cell.key) as acquired:
            assert acquired
        assert (record := other.cell_record(cell.key)) is not None
        assert record["error"] == "of the worker"


def test_a_pool_waits_for_cells_that_another_process_holds_and_takes_its_results(tmp_path: Path) -> None:
    run = held_run(tmp_path)
    elsewhere, held, freed = Store(tmp_path / "out"), run.cells[0], run.cells[1]
    with ExitStack() as first, ExitStack() as second:
        assert first.enter_context(elsewhere.lock(held.key))
        assert second.enter_context(elsewhere.lock(freed.key))

        class Later(Scripted):
            def receive(self, seconds: float) -> Iterator[tuple[int, Message]]:
                if len(run.reports) == 22:  # all but two: the other process ends one, and stores the other
                    elsewhere.save(CellResult.failure(held, "of the other", None))
                    first.close()
                    second.close()
                yield from super().receive(seconds)

        run.pool.backend = Later(computed)
        assert run.done() == {"error": 24}
    notes = {report.key: report.note for report in run.reports}
    assert notes[held.key] == "of the other"
    assert notes[freed.key] == "of the worker"


def test_what_a_pool_holds_is_free_after_an_error(tmp_path: Path) -> None:
    run = held_run(
        tmp_path, lambda task, _: [Failed(UserError("no"))] if isinstance(task, ComputeTask) else [answer(task)]
    )
    held = run.pool._held
    assert held is not None
    with pytest.raises(UserError), held:
        run.done()
    for cell in run.cells:
        with Store(tmp_path / "out").lock(cell.key) as acquired:
            assert acquired


def test_lost_machines_say_nothing_of_how_workers_start(tmp_path: Path) -> None:
    """A node with four starting workers is lost: others take their place."""

    class Node(Scripted):
        def start(self) -> int:
            number = super().start()
            if number <= 4:
                self.messages[-1] = number, Died()
            return number

        def stop(self, worker: int, *, trace: bool) -> Ending:
            return Ending("lost", None, lost=True)

    assert Run(tmp_path, Node()).done(workers=4) == {"ok": 24}
