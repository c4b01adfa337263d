"""SIGKILL, of everything or of a part of it; and two processes at one folder."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from boards import ROOT

from faults.catalogue import case
from faults.ground import Ground, Outcome, finished, run_command


@case("SIGKILL at 20 random moments of a board, from its first file to its tables", "the repeated command goes on")
def at_20_moments(ground: Ground) -> Iterator[Outcome]:
    out, moments = ground.tmp / "out", random.Random(0)
    whole = ground.forked(ground.base.board, out).seconds
    shutil.rmtree(out)
    kills = 0
    for _ in range(200):
        before = finished(out) if out.is_dir() else {}
        killed = ground.forked(ground.base.board, out, signals=[(moments.uniform(0, whole), "SIGKILL")])
        kills += killed.code == -signal.SIGKILL
        kept = before.items() <= (finished(out) if out.is_dir() else {}).items()
        assert kept, f"kill {kills} lost finished cells"
        done = killed.code == 0 or (kills == 20)
        if done or kills % 4 == 0:
            assert killed.code in (0, -signal.SIGKILL), killed.stderr
            yield Outcome(folder=out, board=ground.base.board, kept=before)
            shutil.rmtree(out)
        if kills == 20:
            return
    raise AssertionError(f"only {kills} kills")


@case("SIGKILL before calls that change the disk: files, directories, syncs and renames, one in six", "the same")
def at_disk_calls(ground: Ground) -> Iterator[Outcome]:
    out = ground.copy("nearly")
    told = ground.forked(ground.base.board, out, ["kill_at", str(out), 0])
    calls = int(told.stderr.rpartition("calls ")[2])
    assert calls > 60
    for n in range(1, calls + 1, 6):
        out = ground.copy("nearly")
        before = finished(out)
        assert ground.forked(ground.base.board, out, ["kill_at", str(out), n]).code == -signal.SIGKILL, n
        yield Outcome(folder=out, board=ground.base.board, kept=before)


def _command(ground: Ground, out: os.PathLike[str], *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.cli", "run", str(ground.base.board), "--out", str(out), *more]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)


@case(
    "SIGKILL of the command and its two workers, while they import and while they work", "the repeated command goes on"
)
def with_workers(ground: Ground) -> Outcome:
    out = ground.copy("half")
    before = finished(out)
    for early in (True, False):
        process = _command(ground, out, "--workers", "2")
        assert process.stderr is not None
        if early:
            time.sleep(1)
        else:
            process.stderr.readline()  # of the first cell that is finished
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
    return Outcome(folder=out, board=ground.base.board, kept=before)


@case("two processes on one folder", "every cell is done once, and both end well")
def two_at_once(ground: Ground) -> Iterator[Outcome]:
    out = ground.tmp / "out"
    job = {"argv": ["run", str(ground.base.board), "--out", str(out)]}
    for told in ground.base.driver(job, job):
        yield Outcome(told, code=0)
    yield Outcome(folder=out, kept=finished(out))


@case("two processes on one folder, one of them killed", "the other finishes the board")
def one_of_two(ground: Ground) -> Outcome:
    out = ground.tmp / "out"
    job = {"argv": ["run", str(ground.base.board), "--out", str(out)]}
    first, second = ground.base.driver(job | {"signals": [(0.3, "SIGKILL")]}, job)
    assert first.code == -signal.SIGKILL
    return Outcome(second, code=0, folder=out, kept=finished(out))


@case("a lock file that a killed process left", "it blocks nobody")
def stale_lock(ground: Ground) -> Outcome:
    out = ground.copy("half")
    keys = finished(ground.base.reference)
    (out / ".locks").mkdir(exist_ok=True)
    for key in [*keys, "compact", "manifest"]:
        (out / ".locks" / f"{key}.lock").touch()
    begin = time.perf_counter()
    told = ground.run(ground.base.board, out)
    assert time.perf_counter() - begin < 60
    return Outcome(told, code=0, folder=out, kept=finished(ground.base.half))


@case("a worker killed in its first cell", "the cell is done by another worker, and the run ends well")
def worker_once(ground: Ground) -> Outcome:
    out = ground.copy()
    ground.monkeypatch.setenv("DIES_ONCE", str(ground.tmp / "died"))
    kept, board = finished(out), ground.attack("dies_once")
    told = run_command("run", board, "--out", out, "--workers", 2)
    assert (ground.tmp / "died").exists()
    assert told.code == 0, told.stderr
    shutil.copy(ground.base.reference / "plan.jsonl", out)
    return Outcome(folder=out, board=ground.base.board, kept=kept)


@case("an attack that kills its own worker each time", "the cell is an error that says so; all others are done")
def worker_always(ground: Ground) -> Outcome:
    out = ground.copy()
    kept = finished(out)
    told = run_command("run", ground.attack("dies"), "--out", out, "--workers", 2)
    return Outcome(told, ("linear | dies",), folder=out, kept=kept, errors=[("linear", "dies")])
