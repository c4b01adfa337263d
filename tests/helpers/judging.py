"""`purebench judge` as a command on the models of `boards.write_board`, and what a refusal looks like."""

from __future__ import annotations

import numpy as np
from boards import purebench_here

VERDICT = ("--eps", "1/10", "--draws", 5, "--selection", 3, "--block", 20, "--quiet")
X = np.full((20, 1, 8, 8), 0.5, np.float32)


def judge(board, *arguments):
    return purebench_here("judge", "--defense", f"{board[0]}/models.py:noisy", *VERDICT, *arguments)


def refused(done, *words):
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], lines[0]
