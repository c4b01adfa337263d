"""Local processes as workers: start, monitor and end them from their parent."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from bench.execution.workers.backend import Ending
from bench.execution.workers.messages import Died, Message
from bench.execution.workers.session import WorkerSettings
from bench.execution.workers.tasks import Task
from bench.execution.workers.worker import serve

_PRELOAD = [
    "bench.execution.workers.start_up",
    "torch",
    "bench.execution.attack_and_judge",
    "bench.execution.loading",
    "pyarrow.parquet",
    "safetensors.numpy",
]
_TABLES = ["pandas", "pyarrow.parquet"]  # libraries that the parent needs at the end
_TRACEBACK_SECONDS = 2.0  # at most: time for a stuck worker to write its traceback
_THREAD_POOLS = ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR")  # libraries with a thread pool


@dataclass(frozen=True)
class _WorkerProcess:
    """A worker process in its parent: the multiprocessing process, the connection to it, and its traceback file."""

    process: Any
    pipe: Connection
    traceback_file: Path


def warm_up(threads: int) -> None:
    """Start the server that workers are forked from, which imports their libraries meanwhile; Linux only."""
    if sys.platform != "linux":
        return
    from multiprocessing import forkserver

    multiprocessing.set_forkserver_preload(_PRELOAD)
    # On Ctrl-C this process ends the server, which looks for no modules in the current folder: these are plug-ins'.
    with _environment(_thread_pools(threads) | {"PYTHONSAFEPATH": "1"}), ignore_interrupts():
        forkserver.ensure_running()
    for name in _TABLES:  # imported while the server is still busy
        importlib.import_module(name)


class LocalProcesses:
    """Processes on this machine: a `bench.execution.workers.backend.Backend`.

    Args:
        settings: of the run.
        scratch: folder for the workers' tracebacks.
    """

    def __init__(self, settings: WorkerSettings, scratch: Path):
        self._settings, self._scratch = settings, scratch
        self._multiprocessing: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        self._numbers = count()
        self._workers: dict[int, _WorkerProcess] = {}

    def start(self) -> int:
        """Start a process."""
        number = next(self._numbers)
        parent_end, worker_end = self._multiprocessing.Pipe()
        # A fork has the environment of the server, not of this process.
        arguments = (self._settings, worker_end, file := self._scratch / f"{number}.txt", dict(os.environ))
        process = self._multiprocessing.Process(target=serve, args=arguments, daemon=True)
        process.start()
        worker_end.close()  # only the worker's copy stays open, so its end closes the pipe
        self._workers[number] = _WorkerProcess(process, parent_end, file)
        return number

    def send(self, worker: int, task: Task) -> None:
        """Give a task to a worker."""
        with suppress(BrokenPipeError):  # it has died: `receive` reports that
            self._workers[worker].pipe.send(task)

    def receive(self, seconds: float) -> Iterator[tuple[int, Message]]:
        """Wait for messages, and yield them; the end of a process is the last."""
        workers = list(self._workers.items())
        channels = [channel for _, worker in workers for channel in (worker.pipe, worker.process.sentinel)]
        ready = wait(channels, timeout=seconds)
        for number, worker in workers:
            try:
                while worker.pipe in ready and worker.pipe.poll():
                    yield number, worker.pipe.recv()
                ended = worker.process.sentinel in ready and not worker.pipe.poll()
            except (EOFError, OSError):  # it has died, maybe within a message
                ended = True
            if ended:
                yield number, Died()

    def memory(self, worker: int) -> int:
        """Return the resident bytes of a process; 0 when it has ended."""
        try:
            return int(psutil.Process(self._workers[worker].process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def stop(self, worker: int, *, trace: bool) -> Ending:
        """Kill a process and all that it started."""
        stopped = self._workers[worker]
        if trace and hasattr(signal, "SIGUSR1"):
            with suppress(ProcessLookupError):
                os.kill(stopped.process.pid, signal.SIGUSR1)
            deadline = time.monotonic() + _TRACEBACK_SECONDS
            size, before = 0, -1  # a busy machine writes it in pieces
            while time.monotonic() < deadline and (size == 0 or size != before):
                time.sleep(0.02)
                size, before = stopped.traceback_file.stat().st_size, size
        _kill([self._workers.pop(worker)])
        code, text = stopped.process.exitcode, ""
        with suppress(OSError):
            text = stopped.traceback_file.read_text(errors="replace")
        return Ending(f"signal {-code}" if code is not None and code < 0 else f"exit code {code}", text or None)

    def close(self) -> None:
        """Kill all workers."""
        _kill(list(self._workers.values()))


@contextmanager
def local_processes(settings: WorkerSettings) -> Iterator[LocalProcesses]:
    """Yield a backend of local processes, which end with the context."""
    with tempfile.TemporaryDirectory() as scratch, _environment(_thread_pools(settings.threads)):
        backend = LocalProcesses(settings, Path(scratch))
        try:
            yield backend
        finally:
            backend.close()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _thread_pools(threads: int) -> dict[str, str]:
    """Return the environment variables that size the thread pools of all libraries that a worker loads."""
    return {f"{name}_NUM_THREADS": str(threads) for name in _THREAD_POOLS}


@contextmanager
def ignore_interrupts() -> Iterator[None]:
    """Ignore SIGINT, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _kill(workers: list[_WorkerProcess]) -> None:
    """Kill processes and their process groups, and wait for their end."""
    with ignore_interrupts():
        for worker in workers:
            with suppress(ProcessLookupError, PermissionError, AttributeError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.kill()
        for worker in workers:
            worker.process.join()
