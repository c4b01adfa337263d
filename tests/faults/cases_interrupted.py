"""Ctrl-C, SIGTERM, and copies that were cut short."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from faults.catalogue import case
from faults.ground import Ground, Outcome, finished, nothing_written, trained
from faults.running import Running


def _pressed(ground: Ground, workers: int, times: int) -> Outcome:
    """Ctrl-C in the terminal of a board that is in the middle of an attack."""
    out = ground.copy("half")
    running = Running(ground, out, "--workers", workers)
    kept = finished(out)
    for i in range(times):
        os.killpg(running.process.pid, signal.SIGINT)
        time.sleep(0.05 * i)
    told = running.ended()
    assert len(told.problems()) == 1
    return Outcome(told, ("interrupted", "finished cells are kept"), 130, out, ground.base.board, kept)


@case("Ctrl-C once", "one line, exit code 130, finished cells kept, and no process is left behind")
def once(ground: Ground) -> Outcome:
    return _pressed(ground, 1, 1)


@case("Ctrl-C twice in a row, cells in the command's own process", "the same")
def twice(ground: Ground) -> Outcome:
    return _pressed(ground, 0, 2)


@case("Ctrl-C twice, two workers", "the same")
def twice_with_workers(ground: Ground) -> Outcome:
    return _pressed(ground, 2, 2)


@case("Ctrl-C while the libraries are imported, at three moments", "one line, exit code 130, and nothing is written")
def early(ground: Ground) -> Iterator[Outcome]:
    for seconds in (0.5, 1.5, 3.0):
        out = ground.tmp / f"early-{seconds}"
        running = Running(ground, out, stall=False)
        time.sleep(seconds)
        os.killpg(running.process.pid, signal.SIGINT)
        told = running.ended()
        # A library may be interrupted where Python can only ignore the exception, and say so.
        assert "Traceback" not in told.stderr or "Exception ignored" in told.stderr, told
        assert "EOFError" not in told.stderr, told
        yield Outcome(told, ("interrupted",), 130)


@case(
    "SIGTERM of the command alone, as a scheduler sends it, in the middle of an attack",
    "it ends by the signal or with 143, with one line at most; no process is left behind, finished cells are kept",
)
def terminated(ground: Ground) -> Iterator[Outcome]:
    for workers in (0, 1):
        out = ground.copy("half")
        running = Running(ground, out, "--workers", workers)
        kept = finished(out)
        os.kill(running.process.pid, signal.SIGTERM)
        told = running.ended()
        assert told.code in (-signal.SIGTERM, 128 + signal.SIGTERM), told
        assert "Traceback" not in told.stderr
        assert len(told.problems()) <= 1
        yield Outcome(folder=out, board=ground.base.board, kept=kept)


@case("a copy of weights that was cut short", "refused, naming the file; a whole copy is taken")
def copied_weights(ground: Ground) -> Iterator[Outcome]:
    board, target = trained(ground)
    chosen = ["--defense", "trained", "--weights-root", target.parent.parent]
    data = target.read_bytes()
    for size in (0, 7, len(data) // 2, len(data) - 1):
        target.write_bytes(data[:size])
        told = ground.run(board, ground.tmp / "none", *chosen)
        yield Outcome(told, (str(target),))
        nothing_written(ground.tmp / "none")
    target.with_name(f".{target.name}.123.tmp").write_bytes(data[:100])
    target.write_bytes(data)
    yield Outcome(ground.run(board, ground.tmp / "none", *chosen), code=0)
