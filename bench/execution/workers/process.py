"""Worker processes as their parent sees them: how they are started, watched and ended."""

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
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.board.board import Board
from bench.execution.workers.worker import THREADS, Task, WorkerContext, serve

if TYPE_CHECKING:
    from bench.execution.options import Options

_PRELOAD = ["torch", "bench.execution.run_cell", "pyarrow.parquet", "safetensors.numpy"]
_TABLES = ["pandas", "pyarrow.parquet"]  # what the parent needs at the end
_PATIENCE = 0.5  # seconds that a stuck worker gets for its last words


@dataclass
class WorkerProcess:
    """A worker as its parent sees it; `phase` began at `since`."""

    process: Any
    pipe: Connection
    traceback_file: Path
    task: Task | None = None
    phase: Literal["start", "load", "wait", "work"] = "start"
    since: float = 0.0

    def enter(self, phase: Literal["load", "wait", "work"]) -> None:
        """Go on to the next phase of a task; waiting for another run is no work."""
        self.phase, self.since = phase, time.monotonic()


def warm_up(board: Board) -> None:
    """Let a server import what all workers need, while the parent does other things; workers are forks of it."""
    if sys.platform != "linux":
        return
    from multiprocessing import forkserver

    multiprocessing.set_forkserver_preload(_PRELOAD)
    with thread_pools(board.threads), _ignore_interrupts():  # Ctrl-C is for this process, which ends the server
        forkserver.ensure_running()
    for name in _TABLES:  # the server takes longer than this
        importlib.import_module(name)


def worker_factory(
    board: Board, folder: Path, options: Options, run: str, scratch: Path, *, memory: float | None
) -> Callable[[], WorkerProcess]:
    """What starts a worker each time it is called; see `bench.execution.workers.worker.serve`.

    Args:
        board: what is run.
        folder: where results go.
        options: how.
        run: id of the run.
        scratch: for the workers' last words.
        memory: GiB that a worker may hold.
    """
    method: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    numbers = iter(range(1 << 62))

    def hire() -> WorkerProcess:
        ours, theirs = method.Pipe()
        words = scratch / f"{next(numbers)}.txt"
        # A fork of the server has the environment of the server.
        means = WorkerContext(words, dict(os.environ), memory)
        process = method.Process(target=serve, args=(board, folder, options, run, theirs, means), daemon=True)
        with _without_main_module():
            process.start()
        theirs.close()  # the worker's copy is the last: when it is gone the pipe ends
        return WorkerProcess(process, ours, words)

    return hire


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Without the program's own module: a worker needs nothing of it, and would run a script without a guard again."""
    main = vars(sys.modules["__main__"])
    before = dict(main)
    main["__spec__"] = None
    main.pop("__file__", None)
    try:
        yield
    finally:
        main.update(before)


@contextmanager
def thread_pools(threads: int) -> Iterator[None]:
    """One thread pool size for every library that a worker loads."""
    mine = {f"{name}_NUM_THREADS": str(threads) for name in THREADS}
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
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
    """Without interruptions, for what must come to its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_all(hands: list[WorkerProcess]) -> None:
    """End all workers, whatever they are at."""
    with _ignore_interrupts():
        for hand in hands:
            _kill(hand)
        for hand in hands:
            hand.process.join()


def end(hand: WorkerProcess, *, ask: bool) -> str | None:
    """End a worker and everything it started; its last words, if it left some.

    Args:
        hand: the worker.
        ask: for a traceback first: the process may be stuck anywhere.
    """
    if ask and hasattr(signal, "SIGUSR1"):
        with suppress(ProcessLookupError):
            os.kill(hand.process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and not hand.traceback_file.stat().st_size:
            time.sleep(0.02)
    with _ignore_interrupts():
        _kill(hand)
        hand.process.join()
    with suppress(OSError):
        return hand.traceback_file.read_text(errors="replace") or None
    return None


def _kill(hand: WorkerProcess) -> None:
    with suppress(ProcessLookupError, PermissionError, AttributeError):
        os.killpg(hand.process.pid, signal.SIGKILL)
    hand.process.kill()


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; none when it is gone."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def exit_reason(code: int | None) -> str:
    """How a process ended, in words."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
