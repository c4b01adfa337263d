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
from multiprocessing.connection import Connection
from pathlib import Path

from bench.execution.workers.messages import Failed, Ready, WorkerFailed
from bench.execution.workers.session import Session, WorkerSettings
from bench.execution.workers.tasks import Task
from defenses.utils.errors import UserError


def serve(settings: WorkerSettings, pipe: Connection, traceback_file: Path, environment: Mapping[str, str]) -> None:
    """Run tasks until the parent closes the pipe.

    Args:
        settings: of the run.
        pipe: connection to the parent.
        traceback_file: file for a traceback when the worker crashes, or when the parent requests one.
        environment: environment variables.
    """
    try:
        _prepare(traceback_file, environment)
    except FileNotFoundError:  # the parent was interrupted, and removed its scratch folder
        return
    try:
        session = Session(settings, pipe.send)
        pipe.send(Ready())
        while (task := _receive(pipe)) is not None:
            pipe.send(task.run(session))
    except BrokenPipeError:
        return
    except UserError as error:
        pipe.send(Failed(error))
    except (Exception, KeyboardInterrupt) as error:  # a worker ignores Ctrl-C: a model raised the interrupt
        traceback.print_exc()
        sys.stderr.flush()
        text = (str(error).strip() or "no message").splitlines()[0]
        pipe.send(Failed(WorkerFailed(f"a worker failed: {type(error).__name__}: {text}")))


def _prepare(traceback_file: Path, environment: Mapping[str, str]) -> None:
    """Set environment, crash handler, signals and process group, so that the parent can monitor and end the worker."""
    os.environ.clear()
    os.environ.update(environment)
    traces = traceback_file.open("w")
    faulthandler.enable(traces)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, traces)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # processes that a model starts end with the worker
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _receive(pipe: Connection) -> Task | None:
    """Return the next task; None when the parent has closed the pipe."""
    try:
        task: Task = pipe.recv()
    except EOFError:
        return None
    return task


def _end_with_parent() -> None:
    """Wait for the end of the parent, and end the worker's process group."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
