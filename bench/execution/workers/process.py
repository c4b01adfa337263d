"""Start, monitor and end worker processes from their parent."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.board.board import Board
from bench.execution.workers.worker import Task, WorkerContext, serve

if TYPE_CHECKING:
    from bench.execution.options import Options

_PRELOAD = [
    "bench.execution.workers.start_up",
    "torch",
    "bench.execution.attack_and_judge",
    "bench.execution.loading",
    "pyarrow.parquet",
    "safetensors.numpy",
]
_TABLES = ["pandas", "pyarrow.parquet"]  # libraries that the parent needs at the end
_TRACEBACK_SECONDS = 0.5  # time for a stuck worker to write its traceback
_THREAD_POOLS = ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR")  # libraries with a thread pool


class Phase(Enum):
    """The phase of a worker process."""

    START = auto()  # importing libraries
    LOAD = auto()  # loading the data and defense of a task, or checking it
    WAIT = auto()  # without a task, or waiting for another run to finish the cell
    WORK = auto()  # certifying or running a cell


@dataclass
class WorkerProcess:
    """A worker process in its parent.

    Args:
        process: the multiprocessing process.
        pipe: connection to it.
        traceback_file: file in which it leaves a traceback.
        task: its present task; None: it is idle.
        phase: its present phase.
        since: begin of the phase, by `time.monotonic`.
    """

    process: Any
    pipe: Connection
    traceback_file: Path
    task: Task | None = None
    phase: Phase = Phase.START
    since: float = 0.0

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase, self.since = phase, time.monotonic()


def warm_up(board: Board) -> None:
    """Start the server that workers are forked from, which imports their libraries meanwhile; Linux only."""
    if sys.platform != "linux":
        return
    from multiprocessing import forkserver

    multiprocessing.set_forkserver_preload(_PRELOAD)
    # On Ctrl-C this process ends the server.
    with thread_pools(board.threads), _without_current_folder(), _ignore_interrupts():
        forkserver.ensure_running()
    for name in _TABLES:  # imported while the server is still busy
        importlib.import_module(name)


def worker_factory(
    board: Board, folder: Path, options: Options, run: str, scratch: Path, *, memory: float | None
) -> Callable[[], WorkerProcess]:
    """Return a function that starts a worker; see `bench.execution.workers.worker.serve`.

    Args:
        board: the board.
        folder: the results folder.
        options: options of the run.
        run: id of the run.
        scratch: folder for the workers' tracebacks.
        memory: GiB that a worker may hold; None: no limit.
    """
    method: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    numbers = iter(range(1 << 62))

    def start_worker() -> WorkerProcess:
        parent_end, worker_end = method.Pipe()
        traceback_file = scratch / f"{next(numbers)}.txt"
        # A fork has the environment of the server, not of this process.
        context = WorkerContext(traceback_file, dict(os.environ), memory)
        process = method.Process(target=serve, args=(board, folder, options, run, worker_end, context), daemon=True)
        with _without_main_module():
            process.start()
        worker_end.close()  # only the worker's copy stays open, so its end closes the pipe
        return WorkerProcess(process, parent_end, traceback_file)

    return start_worker


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Hide the main module: a worker would import it, and so run a script without a guard again."""
    main = vars(sys.modules["__main__"])
    before = dict(main)
    main["__spec__"] = None
    main.pop("__file__", None)
    try:
        yield
    finally:
        main.update(before)


@contextmanager
def _without_current_folder() -> Iterator[None]:
    """Let a server that starts meanwhile look for no modules in the current folder: these are for plug-ins alone."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def thread_pools(threads: int) -> Iterator[None]:
    """Set the size of the thread pools of all libraries that a worker loads, in the environment."""
    sizes = {f"{name}_NUM_THREADS": str(threads) for name in _THREAD_POOLS}
    before = {name: os.environ.get(name) for name in sizes}
    os.environ.update(sizes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Ignore SIGINT, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_all(workers: list[WorkerProcess]) -> None:
    """Kill all workers."""
    with _ignore_interrupts():
        for worker in workers:
            _kill(worker)
        for worker in workers:
            worker.process.join()


def end(worker: WorkerProcess, *, ask: bool) -> str | None:
    """Kill a worker and all processes that it started.

    Args:
        worker: the worker.
        ask: request a traceback first.

    Returns:
        The traceback; None where the worker left none.
    """
    if ask and hasattr(signal, "SIGUSR1"):
        with suppress(ProcessLookupError):
            os.kill(worker.process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + _TRACEBACK_SECONDS
        while time.monotonic() < deadline and not worker.traceback_file.stat().st_size:
            time.sleep(0.02)
    with _ignore_interrupts():
        _kill(worker)
        worker.process.join()
    with suppress(OSError):
        return worker.traceback_file.read_text(errors="replace") or None
    return None


def _kill(worker: WorkerProcess) -> None:
    with suppress(ProcessLookupError, PermissionError, AttributeError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.kill()


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds; 0 when it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def exit_reason(code: int | None) -> str:
    """Return the exit code or signal of a process in words."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
