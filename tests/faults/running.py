"""A board that is run in a session of its own and does not end by itself, to be interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from boards import ROOT

from faults.ground import Ground, Told


class Running:
    """`purebench run` in a session of its own, until its first attacks, which never come back.

    Args:
        ground: where.
        out: the results folder.
        more: arguments.
        stall: let the attacks hang; the run cannot end by itself then.
    """

    def __init__(self, ground: Ground, out: Path, *more: object, stall: bool = True):
        mark = ground.tmp / "stalls"
        mark.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bench", "run", ground.base.board, "--out", out, *more]
        self.process = subprocess.Popen(
            [str(x) for x in command], cwd=ROOT, start_new_session=True, text=True,
            env={**os.environ, "FAULTS_STALL": str(mark)} if stall else None,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        end = time.monotonic() + 120
        while stall and not mark.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    def ended(self) -> Told:
        """What it said, when it and every process that it started are gone."""
        import psutil

        stdout, stderr = self.process.communicate(timeout=60)
        end = time.monotonic() + 10
        while left := [p.pid for p in psutil.process_iter() if _session(p.pid) == self.process.pid]:
            assert time.monotonic() < end, f"left behind: {left}"
            time.sleep(0.05)
        return Told(self.process.returncode, stdout, stderr)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
