"""The manifest: on what, with what and by which command results were made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from bench.board import Board
from bench.cell import SCHEMA
from bench.store import Store, write_atomic

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
    here = Path(__file__).parent

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


def describe_run(board: Board, workers: int, device: str) -> dict[str, Any]:
    """One entry of the manifest's runs."""
    return {
        "id": uuid.uuid4().hex[:12],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["purebench", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "purebench" else "(from Python)",
        "versions": versions(),
        "git": _git(),
        "hardware": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system(), "device": device},
        "threads": board.threads,
        "workers": workers,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder; empty when there is none, or it cannot be read."""
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def update_manifest(store: Store, board: Board, run: dict[str, Any] | None = None, **values: Any) -> None:
    """Write the board's facts, add or replace a run, and set further values."""
    with store.lock("manifest", wait=True):
        content = read_manifest(store.folder)
        content |= {
            "schema": SCHEMA,
            "board": board.name,
            "title": board.title,
            "dataset": board.dataset,
            "split": board.split,
            "indices": board.indices,
            "seed": board.seed,
            "budget": board.budget,
            "defenses": {d.label: dict(d.fingerprint) for d in board.defenses},
        } | values
        if run is not None:
            runs = [r for r in content.get("runs", []) if r["id"] != run["id"]]
            content["runs"] = [*runs, run]
        write_atomic(store.folder / "manifest.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
