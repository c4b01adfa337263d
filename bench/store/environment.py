"""Describe the machine of a run: versions of packages, git commit, processor."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

_PACKAGES = (
    *("purebench", "torch", "torchvision", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "safetensors"),
    *("foolbox", "torchattacks", "autoattack", "pyautoattack", "robustbench"),
)
_CODE = ("bench", "defenses", "leaderboards")
_ADDRESS = re.compile(r"(--?[\w-]+=)?https?://")
_FOLDER = re.compile(r"(^|[=:])(?:~?/|[A-Za-z]:[\\/]).*[\\/](?=.)")  # of an absolute path


class RunRecord(TypedDict, total=False):
    """An entry of the manifest's runs.

    Args:
        probabilities: digests, by title, of defenses that were run although they return probabilities.
        resumed: reasons, by label, why results that were taken over may be of another model.
        shard: the part of the board that was run, as "3/16"; absent: all of it.
    """

    id: str
    started: str
    finished: str
    seconds: float
    command: str
    versions: dict[str, str]
    git: dict[str, str | bool] | None
    hardware: dict[str, str | int | None]
    threads: int
    workers: int
    probabilities: dict[str, str]
    resumed: dict[str, str]
    shard: str


def versions() -> dict[str, str]:
    """Return the installed versions of all packages that results depend on, without importing them."""
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def source_digest() -> str:
    """Return a hash of purebench's own code, by which two installations are the same: 16 hex digits."""
    top, whole = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(path for name in _CODE for path in (top / name).rglob("*.py")):
        whole.update(f"{path.relative_to(top).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def _git() -> dict[str, str | bool] | None:
    here = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        process = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10)
        return process.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", ".", "../defenses")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_run(threads: int, workers: int, device: str) -> RunRecord:
    """Return an entry of the manifest's runs.

    Args:
        threads: torch threads of each process.
        workers: number of worker processes.
        device: where models run, as "cuda:0".
    """
    return {
        "id": uuid.uuid4().hex[:12],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": _command(sys.argv),
        "versions": versions(),
        "git": _git(),
        "hardware": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system(), "device": device},
        "threads": threads,
        "workers": workers,
    }


def _command(words: Sequence[str]) -> str:
    """Return a command line as it is recorded: quoted for a shell, without the folders of absolute paths."""
    if Path(words[0]).stem != "purebench":
        return "(from Python)"
    shown = (word if _ADDRESS.match(word) else _FOLDER.sub(r"\1", word.rstrip("/")) for word in words[1:])
    return shlex.join(["purebench", *shown])
