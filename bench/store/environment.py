"""The machine of a run: versions of packages, git commit, processor."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("purebench", "torch", "torchvision", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "safetensors"),
    *("foolbox", "torchattacks", "autoattack", "pyautoattack", "robustbench"),
)


def versions() -> dict[str, str]:
    """Installed versions of everything that results depend on; nothing is imported."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git() -> dict[str, Any] | None:
    here = Path(__file__).parents[1]

    def ask(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        changed = ask("status", "--porcelain", "--", ".", "../defenses")
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(changed)}
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


def describe_run(threads: int, workers: int, device: str) -> dict[str, Any]:
    """One entry of the manifest's runs."""
    return {
        "id": uuid.uuid4().hex[:12],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["purebench", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "purebench" else "(from Python)",
        "versions": versions(),
        "git": _git(),
        "hardware": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system(), "device": device},
        "threads": threads,
        "workers": workers,
    }
