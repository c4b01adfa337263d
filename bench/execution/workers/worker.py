"""A worker process: it does the cells that its parent hands it, and ends with its parent."""

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
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.board.board import Board
from bench.evaluation.certificates.stored import failed
from bench.execution.cell_runner import CellRecord, CellRunner, finish
from bench.execution.records import failure
from bench.execution.workers.limits import GIB
from bench.spec.cell import Cell
from bench.store.folder import CellResult, Store
from defenses.utils.errors import UserError

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from bench.execution.options import Options

_ALLOWED = 0.95  # of the limit, so that memory runs out before the parent ends the worker
THREADS = ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR")  # libraries with a thread pool of their own


class WorkerFailed(Exception):
    """A fault of purebench in a worker process, which has printed its traceback."""


@dataclass(frozen=True)
class Task:
    """What a worker is asked to do.

    Args:
        kind: "check" the defense of the cell, "certify" its gradients, or do the "cell".
        cell: which.
        before: a stored record that does not count.
        wait: for another process that is at the cell.
    """

    kind: Literal["check", "certify", "cell"]
    cell: Cell
    before: CellRecord | None = None
    wait: bool = False


@dataclass(frozen=True)
class WorkerContext:
    """What a worker is given.

    Args:
        traceback_file: file that gets a traceback when it crashes, or when the parent asks for one.
        environment: variables.
        memory: GiB that it may hold; None: any.
    """

    traceback_file: Path
    environment: Mapping[str, str]
    memory: float | None = None


def serve(board: Board, folder: Path, options: Options, run: str, pipe: Connection, means: WorkerContext) -> None:
    """Do tasks until the parent closes the pipe.

    Says ("ready",); for a check ("checked", title, seconds, whether it returns probabilities); for a certificate
    ("loaded",), ("began",) and ("certified", title, certificate); for a cell ("loaded",) when its defense is there,
    then ("busy",) when another process is at it, else ("began",) and ("done", key, status, seconds, note); an exception
    when there is nothing more to be done.

    Args:
        board: what is run.
        folder: where results go.
        options: how.
        run: id of the run.
        pipe: to the parent.
        means: what it is given.
    """
    try:
        _prepare(means)
    except FileNotFoundError:  # the parent was interrupted, and took its scratch folder with it
        return
    try:
        import torch

        torch.set_num_threads(board.threads)
        _share_accelerator(options)
        store, workshop = Store(folder), CellRunner(board, options)
        pipe.send(("ready",))
        while (task := _next(pipe)) is not None:
            _do(task, store, workshop, run, pipe, means.memory)
    except BrokenPipeError:
        return
    except UserError as error:
        pipe.send(error)
    except (Exception, KeyboardInterrupt) as error:  # no key is pressed in a worker: a model raised it
        traceback.print_exc()
        sys.stderr.flush()
        text = (str(error).strip() or "no message").splitlines()[0]
        pipe.send(WorkerFailed(f"a worker failed: {type(error).__name__}: {text}"))


def _prepare(means: WorkerContext) -> None:
    """Make this a process that its parent can watch and end."""
    os.environ.clear()
    os.environ.update(means.environment)
    words = means.traceback_file.open("w")
    faulthandler.enable(words)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, words)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # so that what a model has started ends with its worker
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _share_accelerator(options: Options) -> None:
    """No more of its memory than this worker's share: beyond, rows are halved as on the CPU."""
    import torch

    device = torch.device(options.device)
    if device.type == "cuda" and options.workers > 1:
        torch.cuda.set_per_process_memory_fraction(_ALLOWED / options.workers, device.index)


def _next(pipe: Connection) -> Task | None:
    try:
        task: Task = pipe.recv()
    except EOFError:
        return None
    return task


def _do(task: Task, store: Store, workshop: CellRunner, run: str, pipe: Connection, memory: float | None) -> None:
    def report(key: str, status: str, seconds: float | None, note: str | None) -> None:
        pipe.send(("done", key, status, seconds, note))

    if task.kind == "check":
        pipe.send(("checked", task.cell.defense.title, *workshop.check(task.cell)))
        return
    workshop.defense(task.cell)
    pipe.send(("loaded",))
    if task.kind == "certify":
        pipe.send(("began",))
        pipe.send(("certified", task.cell.defense.title, _certificate(workshop, task.cell)))
        return
    with store.lock(task.cell.key, wait=task.wait) as mine:
        pipe.send(("began",) if mine else ("busy",))
        if mine:
            finish(store, task.cell, lambda cell: _result(memory, workshop, cell), run, report, task.before)


def _certificate(workshop: CellRunner, cell: Cell) -> CellRecord:
    try:
        return workshop.certify(cell)
    except KeyboardInterrupt as error:  # see `_result`
        return failed(f"KeyboardInterrupt: {error}".rstrip(": "))


def _result(memory: float | None, workshop: CellRunner, cell: Cell) -> CellResult:
    """The result of a cell; no key is pressed in a worker, so an interruption is what a model raised."""
    try:
        return _within(memory, workshop, cell)
    except KeyboardInterrupt as error:
        return failure(cell, f"KeyboardInterrupt: {error}".rstrip(": "), traceback.format_exc())


def _within(memory: float | None, workshop: CellRunner, cell: Cell) -> CellResult:
    """The result of a cell that gets no memory beyond the limit: torch says so, and fewer rows may do."""
    if memory is None or resource is None or sys.platform != "linux" or workshop.options.device != "cpu":
        return workshop.execute(cell)
    import psutil

    held = psutil.Process().memory_info()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(held.data + max(0.0, _ALLOWED * memory * GIB - held.rss))
    resource.setrlimit(resource.RLIMIT_DATA, (most if before[1] < 0 else min(most, before[1]), before[1]))
    try:
        result = workshop.execute(cell)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    if any(word in (result.line["error"] or "") for word in ("allocate", "MemoryError", "not enough memory")):
        result.line["error"] += f"; a worker may hold {memory:.3g} GiB (--memory)"
    return result


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
