"""Ctrl-C, and copies that were cut short."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from boards import BOARD, ROOT

from faults.catalogue import case
from faults.ground import Ground, Outcome, Told, finished


def _press(ground: Ground, out: os.PathLike[str], workers: int, times: int) -> Told:
    """Ctrl-C in the terminal of a running board, after its first cell."""
    command = [sys.executable, "-m", "bench.cli", "run", str(ground.base.board), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)], cwd=ROOT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    first = process.stderr.readline()
    for i in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05 * i)
    stdout, stderr = process.communicate(timeout=120)
    return Told(process.returncode, stdout, first + stderr)


def _pressed(ground: Ground, workers: int, times: int) -> Outcome:
    out = ground.copy("half")
    told = _press(ground, out, workers, times)
    if told.code == 0:  # all was done before the key was heard
        return Outcome(folder=out, board=ground.base.board, kept=finished(ground.base.half))
    return Outcome(told, ("interrupted",), 130, out, ground.base.board, finished(out))


@case("Ctrl-C once", "one line, exit code 130, finished cells kept")
def once(ground: Ground) -> Outcome:
    return _pressed(ground, 1, 1)


@case("Ctrl-C twice in a row", "the same")
def twice(ground: Ground) -> Outcome:
    return _pressed(ground, 1, 2)


@case("Ctrl-C once, two workers", "the same, and no process is left behind")
def once_with_workers(ground: Ground) -> Outcome:
    return _pressed(ground, 2, 1)


@case("Ctrl-C twice, two workers", "the same, and no process is left behind")
def twice_with_workers(ground: Ground) -> Outcome:
    return _pressed(ground, 2, 2)


@case("SIGTERM, as a scheduler sends it", "exit code 143 or one line; the repeated command goes on")
def terminated(ground: Ground) -> Outcome:
    out = ground.copy("half")
    told = ground.forked(ground.base.board, out, signals=[(0.2, "SIGTERM")])
    assert told.code in (0, -signal.SIGTERM, 143), told
    assert "Traceback" not in told.stderr
    return Outcome(folder=out, board=ground.base.board, kept=finished(ground.base.half))


@case("a copy of weights that was cut short", "refused, naming the file; a whole copy is taken")
def copied_weights(ground: Ground) -> Iterator[Outcome]:
    from defenses.weights_io import find_weights

    source = find_weights("undefended", "digits")
    folder = ground.tmp / "weights/digits"
    folder.mkdir(parents=True)
    board = ground.tmp / "trained.toml"
    text = BOARD.replace('"{models}:linear"', '"undefended"').replace('label = "linear"', 'label = "trained"')
    board.write_text(text.format(models=ground.base.folder / "models.py", seconds=0.0))
    chosen = ["--defense", "trained", "--weights-root", folder.parent]
    target = folder / source.name
    shutil.copy(source.with_suffix(".json"), folder)
    data = source.read_bytes()
    for size in (0, 7, len(data) // 2, len(data) - 1):
        target.write_bytes(data[:size])
        told = ground.run(board, ground.tmp / "none", *chosen)
        yield Outcome(told, (str(target),))
        assert not list((ground.tmp / "none").glob("parts/*"))
    (folder / f".{source.name}.123.tmp").write_bytes(data[:100])
    target.write_bytes(data)
    yield Outcome(ground.run(board, ground.tmp / "none", *chosen), code=0)
