"""The command on a terminal of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from boards import ROOT


def on_terminal(*arguments: object, columns: int = 80, colour: bool = False, cwd: object = ROOT) -> str:
    """Return what a command prints on a terminal of so many columns; it must exit with 0."""
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "NO_COLOR": "" if colour else "1"}
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    with subprocess.Popen(command, stdout=slave, stderr=subprocess.PIPE, cwd=str(cwd), env=environment) as process:
        os.close(slave)
        chunks = []
        while chunk := _read(master):
            chunks.append(chunk)
        error = process.stderr.read().decode() if process.stderr else ""
        assert process.wait() == 0, error
    os.close(master)
    return b"".join(chunks).decode().replace("\r\n", "\n")


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # the other end is closed
        return b""
