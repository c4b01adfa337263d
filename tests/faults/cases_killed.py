"""SIGKILL, of everything or of a part of it; and two processes at one folder."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

from faults.catalogue import case
from faults.ground import Ground, Outcome, finished, run_command
from faults.running import Running


@case("SIGKILL at 10 random moments of a board, from its first file to its tables", "the repeated command goes on")
def at_10_moments(ground: Ground) -> Iterator[Outcome]:
    out, moments = ground.tmp / "out", random.Random(0)
    whole = ground.forked(ground.base.board, out).seconds
    shutil.rmtree(out)
    kills = 0
    for _ in range(100):
        before = finished(out) if out.is_dir() else {}
        killed = ground.forked(ground.base.board, out, signals=[(moments.uniform(0, whole), "SIGKILL")])
        kills += killed.code == -signal.SIGKILL
        kept = before.items() <= (finished(out) if out.is_dir() else {}).items()
        assert kept, f"kill {kills} lost finished cells"
        done = killed.code == 0 or kills == 10
        if done or kills % 5 == 0:
            assert killed.code in (0, -signal.SIGKILL), killed.stderr
            yield Outcome(folder=out, board=ground.base.board, kept=before)
            assert not list((out / "parts").glob(".*"))
            shutil.rmtree(out)
        if kills == 10:
            return
    raise AssertionError(f"only {kills} kills")


@case("SIGKILL before calls that change the disk: files, directories, syncs and renames, one in nine", "the same")
def at_disk_calls(ground: Ground) -> Iterator[Outcome]:
    out = ground.copy("nearly")
    told = ground.forked(ground.base.board, out, ["kill_at", str(out), 0])
    calls = int(told.stderr.rpartition("calls ")[2])
    assert calls > 60
    for n in range(1, calls + 1, 9):
        out = ground.copy("nearly")
        before = finished(out)
        assert ground.forked(ground.base.board, out, ["kill_at", str(out), n]).code == -signal.SIGKILL, n
        yield Outcome(folder=out, board=ground.base.board, kept=before)


@case(
    "SIGKILL of the command alone, while its workers import and in the middle of an attack; one worker, and two",
    "its workers end with it; the repeated command goes on",
)
def with_workers(ground: Ground) -> Outcome:
    out = ground.copy("half")
    kept = finished(out)
    for workers, early in ((1, True), (2, False)):
        running = Running(ground, out, "--workers", workers, stall=not early)
        time.sleep(early)
        kept |= finished(out)
        os.kill(running.process.pid, signal.SIGKILL)
        assert running.ended().code == -signal.SIGKILL
    return Outcome(folder=out, board=ground.base.board, kept=kept)


@case("two processes on one folder", "every attack is run once, by both of them together, and both end well")
def two_at_once(ground: Ground) -> Iterator[Outcome]:
    out, calls = ground.tmp / "out", ground.tmp / "calls"
    argv = ["run", str(ground.base.board), "--out", str(out), "--workers"]
    jobs = [{"argv": [*argv, n], "conditions": [["variable", "FAULTS_CALLS", str(calls)]]} for n in ("0", "1")]
    for told in ground.base.driver(*jobs):
        yield Outcome(told, code=0)
    made = [line.split() for line in calls.read_text().splitlines()]
    assert len({process for process, *_ in made}) == 2
    blocks = [(noisy, first) for noisy in ("False", "True") for first in ("0", "20", "40")]
    assert Counter((noisy, first) for _, noisy, first in made) == Counter(blocks)
    yield Outcome(folder=out)


@case("two processes on one folder, one of them killed in the middle of an attack", "the other finishes the board")
def one_of_two(ground: Ground) -> Outcome:
    out, whole = ground.copy("half"), len(finished(ground.base.reference))
    first, kept = Running(ground, out), finished(out)

    def kill() -> None:
        """When the second has done all but the cell at which the first one is."""
        end = time.monotonic() + 60
        while len(kept) < whole - 1 and time.monotonic() < end:
            time.sleep(0.05)
            kept.update(finished(out))
        os.kill(first.process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    second = ground.forked(ground.base.board, out)
    killer.join()
    assert first.ended().code == -signal.SIGKILL
    assert len(kept) == whole - 1
    return Outcome(second, code=0, folder=out, kept=kept)


@case(
    "SIGKILL of one of two shards of a board in the middle of an attack, which `merge` names",
    "the repeated shard goes on, and both together are the whole board",
)
def shard(ground: Ground) -> Outcome:
    folders = [ground.tmp / f"{number}-of-2" for number in (1, 2)]
    running = Running(ground, folders[0], "--shard", "1/2", "--workers", 0)
    kept = finished(folders[0])
    os.kill(running.process.pid, signal.SIGKILL)
    assert running.ended().code == -signal.SIGKILL
    assert ground.run(ground.base.board, folders[1], "--shard", "2/2").code == 0
    assert "(run shard 1/2)" in run_command("merge", *folders, "--out", ground.tmp / "part").stdout
    assert ground.run(ground.base.board, folders[0], "--shard", "1/2").code == 0
    merged = run_command("merge", *folders, "--out", ground.tmp / "whole")
    return Outcome(merged, code=0, folder=ground.tmp / "whole", kept=kept | finished(folders[1]))


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
    told = ground.plainly(board, out)
    assert (ground.tmp / "died").exists()
    assert told.code == 0, told.stderr
    shutil.copy(ground.base.reference / "plan.jsonl", out)
    return Outcome(folder=out, board=ground.base.board, kept=kept)


@case("an attack that kills its own worker each time", "the cell is an error that says so; all others are done")
def worker_always(ground: Ground) -> Outcome:
    out = ground.copy()
    kept = finished(out)
    told = ground.plainly(ground.attack("dies"), out)
    return Outcome(told, ("linear | dies",), folder=out, kept=kept, errors=[("linear", "dies")])
