"""Errors of a worker that starts; the server that workers are forked from imports this, and calls nothing of ours.

A worker whose parent is interrupted while it starts it reads an incomplete message, and ends without a traceback.
"""

from __future__ import annotations

import sys
from pickle import UnpicklingError
from types import TracebackType


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught exception of the server or of a worker, but for an incomplete message at a worker's start."""
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame.f_globals.get("__name__"))
        trace = trace.tb_next
    if not (issubclass(kind, EOFError | UnpicklingError) and frames[-1:] == ["multiprocessing.spawn"]):
        sys.__excepthook__(kind, error, error.__traceback__)


sys.excepthook = report
