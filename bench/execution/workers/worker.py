"""Worker process: runs the tasks that its parent sends, and ends with its parent."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.board.board import Board
from bench.evaluation.certificates.stored import failed
from bench.execution.cell_runner import CellRunner, finish
from bench.execution.workers.limits import GIB
from bench.spec.cell import Cell
from bench.store.folder import CellResult, Store
from bench.store.parts import CellRecord
from defenses.utils.errors import UserError

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from bench.execution.options import Options

_ALLOWED = 0.95  # of the limit, so that memory runs out before the parent ends the worker


class WorkerFailed(Exception):
    """A fault of purebench in a worker process, which has printed its traceback."""


class TaskKind(Enum):
    """The kind of a task."""

    CHECK = auto()  # load and check the defense of the cell
    CERTIFY = auto()  # certify its gradients
    RUN = auto()  # run the cell


@dataclass(frozen=True)
class Task:
    """A task for a worker.

    Args:
        kind: the kind.
        cell: the cell, whose defense it may be about.
        superseded: a stored record of the cell that does not count as finished.
        wait: wait for another process that runs the cell.
    """

    kind: TaskKind
    cell: Cell
    superseded: CellRecord | None = None
    wait: bool = False


@dataclass(frozen=True)
class WorkerContext:
    """The surroundings of a worker.

    Args:
        traceback_file: file for a traceback when the worker crashes, or when the parent requests one.
        environment: environment variables.
        memory: GiB that the worker may hold; None: no limit.
    """

    traceback_file: Path
    environment: Mapping[str, str]
    memory: float | None = None


def serve(board: Board, folder: Path, options: Options, run: str, pipe: Connection, context: WorkerContext) -> None:
    """Run tasks until the parent closes the pipe.

    Messages to the parent: ("ready",) at the start; for a check ("checked", title, seconds, True if the defense returns
    probabilities); for a certificate ("loaded",), ("began",) and ("certified", title, certificate); for a cell
    ("loaded",) when its defense is in memory, then ("busy",) when another process runs it, else ("began",) and
    ("done", key, status, seconds, note); an exception when the worker ends.

    Args:
        board: the board.
        folder: the results folder.
        options: options of the run.
        run: id of the run.
        pipe: connection to the parent.
        context: surroundings of the worker.
    """
    try:
        _prepare(context)
    except FileNotFoundError:  # the parent was interrupted, and removed its scratch folder
        return
    try:
        import torch

        torch.set_num_threads(board.threads)
        _share_accelerator(options)
        store, runner = Store(folder), CellRunner(board, options)
        pipe.send(("ready",))
        while (task := _receive(pipe)) is not None:
            _do(task, store, runner, run, pipe, context.memory)
    except BrokenPipeError:
        return
    except UserError as error:
        pipe.send(error)
    except (Exception, KeyboardInterrupt) as error:  # a worker ignores Ctrl-C: a model raised the interrupt
        traceback.print_exc()
        sys.stderr.flush()
        text = (str(error).strip() or "no message").splitlines()[0]
        pipe.send(WorkerFailed(f"a worker failed: {type(error).__name__}: {text}"))


def _prepare(context: WorkerContext) -> None:
    """Set environment, crash handler, signals and process group, so that the parent can monitor and end the worker."""
    os.environ.clear()
    os.environ.update(context.environment)
    traceback_file = context.traceback_file.open("w")
    faulthandler.enable(traceback_file)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, traceback_file)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # processes that a model starts end with the worker
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _share_accelerator(options: Options) -> None:
    """Limit the worker to its share of an accelerator's memory; beyond it, batches are halved as on the CPU."""
    import torch

    device = torch.device(options.device)
    if device.type == "cuda" and options.workers > 1:
        torch.cuda.set_per_process_memory_fraction(_ALLOWED / options.workers, device.index)


def _receive(pipe: Connection) -> Task | None:
    """Return the next task; None when the parent has closed the pipe."""
    try:
        task: Task = pipe.recv()
    except EOFError:
        return None
    return task


def _do(task: Task, store: Store, runner: CellRunner, run: str, pipe: Connection, memory: float | None) -> None:
    def report(key: str, status: str, seconds: float | None, note: str | None) -> None:
        pipe.send(("done", key, status, seconds, note))

    if task.kind is TaskKind.CHECK:
        pipe.send(("checked", task.cell.defense.title, *runner.check(task.cell)))
        return
    runner.defense(task.cell)
    pipe.send(("loaded",))
    if task.kind is TaskKind.CERTIFY:
        pipe.send(("began",))
        pipe.send(("certified", task.cell.defense.title, _certificate(runner, task.cell)))
        return
    with store.lock(task.cell.key, wait=task.wait) as acquired:
        pipe.send(("began",) if acquired else ("busy",))
        if acquired:
            finish(store, task.cell, lambda cell: _result(memory, runner, cell), run, report, task.superseded)


def _certificate(runner: CellRunner, cell: Cell) -> dict[str, Any]:
    try:
        return runner.certify(cell)
    except KeyboardInterrupt as error:  # raised by a model, as in `_result`
        return failed(f"KeyboardInterrupt: {error}".rstrip(": "))


def _result(memory: float | None, runner: CellRunner, cell: Cell) -> CellResult:
    """Run a cell; a worker ignores Ctrl-C, so a KeyboardInterrupt is an error of the model."""
    try:
        return _execute_within(memory, runner, cell)
    except KeyboardInterrupt as error:
        return CellResult.failure(cell, f"KeyboardInterrupt: {error}".rstrip(": "), traceback.format_exc())


def _execute_within(memory: float | None, runner: CellRunner, cell: Cell) -> CellResult:
    """Run a cell under a memory limit, where torch raises an error on which batches are halved."""
    if memory is None or resource is None or sys.platform != "linux" or runner.options.device != "cpu":
        return runner.execute(cell)
    from bench.evaluation.batching import reports_out_of_memory  # imports torch

    usage = psutil.Process().memory_info()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(usage.data + max(0.0, _ALLOWED * memory * GIB - usage.rss))
    resource.setrlimit(resource.RLIMIT_DATA, (limit if before[1] < 0 else min(limit, before[1]), before[1]))
    try:
        result = runner.execute(cell)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    if reports_out_of_memory(result.line["error"] or ""):
        result.line["error"] += f"; a worker may hold {memory:.3g} GiB (--memory)"
    return result


def _end_with_parent() -> None:
    """Wait for the end of the parent, and end the worker's process group."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
