"""Several processes at one board. They end with the one that started them, also when that is killed."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board import Board
from bench.cell import Cell
from bench.store import Store
from bench.work import Line, Report, Workshop, work
from defenses.errors import UserError

if TYPE_CHECKING:
    from bench.run import Options


class WorkerFailed(Exception):
    """A fault of purebench in a worker process, which has printed its traceback."""


def run_workers(
    board: Board,
    folder: Path,
    pending: list[Cell],
    options: Options,
    run: str,
    report: Report,
    redo: Mapping[str, Line],
) -> None:
    """Do cells in `options.workers` processes; see `bench.work.work`.

    Raises:
        UserError: bad input, or a worker was killed.
        WorkerFailed: anything else that went wrong in a worker.
    """
    if options.loaded:
        raise UserError("a model in memory runs with workers=1; give it as module:Class for more")
    context = multiprocessing.get_context("spawn")
    ears: list[Connection] = []
    workers = []
    try:
        for _ in range(min(options.workers, len(pending))):
            ear, mouth = context.Pipe(duplex=False)
            worker = context.Process(
                target=_worker, args=(board, folder, pending, options, run, redo, mouth), daemon=True
            )
            worker.start()
            mouth.close()  # the worker's copy is the last: when it is gone the pipe ends
            ears.append(ear)
            workers.append(worker)
        for message in messages(ears):
            if isinstance(message, Exception):
                raise message
            report(*message)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
    dead = [w.exitcode for w in workers if w.exitcode not in (0, -15)]
    if dead:
        raise UserError(f"a worker process died (exit code {dead[0]}); finished cells are kept, repeat the command")


def messages(ears: list[Connection]) -> Iterator[Any]:
    """All that the workers say, to the last word of the last one."""
    listening = list(ears)
    while listening:
        ready = wait(listening)
        for ear in [e for e in listening if e in ready]:
            try:
                message = ear.recv()
            except (EOFError, OSError):  # the worker is gone, maybe in mid-word
                listening.remove(ear)
            else:
                yield message


def _worker(
    board: Board,
    folder: Path,
    cells: list[Cell],
    options: Options,
    run: str,
    redo: Mapping[str, Line],
    mouth: Connection,
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(key: str, status: str, seconds: float | None, note: str | None) -> None:
        mouth.send((key, status, seconds, note))

    try:
        work(Store(folder), cells, Workshop(board, options), run, report, redo=redo)
    except UserError as error:
        mouth.send(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        text = (str(error).strip() or "no message").splitlines()[0]
        mouth.send(WorkerFailed(f"a worker failed: {type(error).__name__}: {text}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
