"""Disks that are full, read-only or failing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards import ROOT

from faults.catalogue import case
from faults.ground import Ground, Outcome, finished


@case(
    "a tmpfs that fills up, with room for 4 to 400 KiB more than the results on it",
    "one line that names the folder; more room and the run goes on",
)
def full_tmpfs(ground: Ground) -> Iterator[Outcome]:
    mount, copy = ground.tmp / "disk", ground.tmp / "copy"
    out, codes = copy / "out", []
    mount.mkdir()
    for kib in (4, 40, 120, 200, 280, 400):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(ground.base.half, out)
        before = finished(out)
        told = ground.forked(ground.base.board, mount / "out", ["tmpfs", str(mount), kib + _kib(out), str(copy)])
        codes.append(told.code)
        assert finished(out).items() >= before.items(), kib
        if told.code:
            yield Outcome(told, ("no space left", str(mount)), folder=out, board=ground.base.board, kept=finished(out))
        else:
            yield Outcome(folder=out, kept=before)
    assert 2 in codes
    assert codes[0] == 2


def _kib(folder: Path) -> int:
    """What its files and folders take on a disk of pages of 4 KiB."""
    return 4 * sum(1 + (-(-p.stat().st_size // 4096) if p.is_file() else 0) for p in folder.rglob("*"))


def _sweep(ground: Ground, error: str, step: int, *names: str) -> Iterator[Outcome]:
    out = ground.copy("nearly")
    told = ground.forked(ground.base.board, out, ["fail_from", str(out), 10**9, error])
    calls = int(told.stderr.rpartition("calls ")[2])
    for n in range(1, calls + 1, step):
        out = ground.copy("nearly")
        before = finished(out)
        told = ground.forked(ground.base.board, out, ["fail_from", str(out), n, error])
        yield Outcome(told, (*names, str(out)), folder=out, board=ground.base.board, kept=before)


@case("a disk that is full from the n-th write on, for n over a whole run", "one line that names the folder")
def full_from_each_write(ground: Ground) -> Iterator[Outcome]:
    yield from _sweep(ground, "ENOSPC", 17, "no space left")


@case("a disk that fails (EIO) from the n-th write on", "one line that names the folder")
def failing(ground: Ground) -> Iterator[Outcome]:
    yield from _sweep(ground, "EIO", 29, "cannot write")


@case("finished results on a read-only disk", "the table is shown, and the run has nothing to do")
def read_only_finished(ground: Ground) -> Iterator[Outcome]:
    out = ground.copy()
    kept = finished(out)
    told = ground.forked(ground.base.board, out, ["readonly", str(out)])
    yield Outcome(told, code=0, folder=out, kept=kept)
    assert "linear" in told.stdout


@case("unfinished results on a read-only disk", "one line that names the folder; nothing is changed")
def read_only_unfinished(ground: Ground) -> Outcome:
    out = ground.copy("nearly")
    kept = finished(out)
    told = ground.forked(ground.base.board, out, ["readonly", str(out)])
    return Outcome(told, ("cannot write", str(out)), folder=out, board=ground.base.board, kept=kept)


@case("a folder in which this user may not write", "one line that names it; nothing is made")
def not_ours(ground: Ground) -> Outcome:
    out = ground.copy("nearly")
    kept = finished(out)
    for path in [ground.tmp, *ground.tmp.parents][:4]:
        if path.stat().st_mode & 0o005 != 0o005 and os.access(path, os.W_OK) and path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o055)
    for path in [out, *out.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in (ground.base.folder, *ground.base.folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    told = ground.forked(ground.base.board, out, ["nobody"])
    if "Permission denied" in told.stderr and "cannot write" not in told.stderr:
        pytest.skip("other users may not read the source here")
    for path in [out, *out.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Outcome(told, ("cannot write", str(out)), folder=out, board=ground.base.board, kept=kept)


@case("a results folder below a file", "one line that names it")
def below_a_file(ground: Ground) -> Outcome:
    file = ground.tmp / "file"
    file.touch()
    return Outcome(ground.run(ground.base.board, file / "out"), ("cannot write", str(file / "out")))


@case("a table printed to a full disk", "an error and not a table cut short with exit code 0")
def table_to_full_disk(ground: Ground) -> Outcome:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    out = ground.copy()
    kept = finished(out)
    command = [sys.executable, "-m", "bench", "table", str(out)]
    with full.open("w") as target:
        done = subprocess.run(command, cwd=ROOT, stdout=target, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    assert [x for x in done.stderr.splitlines() if x.startswith("purebench:") and "standard output" in x]
    return Outcome(folder=out, kept=kept)


@case("a reader that closes the pipe of the table", "no traceback, and no exit code 0")
def closed_pipe(ground: Ground) -> Outcome:
    out = ground.copy()
    kept = finished(out)
    command = f"set -o pipefail; {sys.executable} -m bench table {out} | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    return Outcome(folder=out, kept=kept)
