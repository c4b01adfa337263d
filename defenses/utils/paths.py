"""Folders: the cache, weights, data sets."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for what can be made or fetched again: $XDG_CACHE_HOME/purebench, else ~/.cache/purebench."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "purebench"


def cache_dir() -> Path:
    """Return the folder where `purebench train` writes weights by default."""
    return cache_folder() / "weights"


def data_root(root: str | Path | None = None) -> Path:
    """Return the folder of data sets: `root`, else $PUREBENCH_DATA, else a checkout's ../shared/data, else the cache.

    Args:
        root: an explicit choice.
    """
    chosen = root or os.environ.get("PUREBENCH_DATA")
    if chosen:
        return Path(chosen).expanduser()
    checkout = Path(__file__).resolve().parents[2]
    beside = checkout.parent / "shared" / "data"
    if (checkout / "pyproject.toml").is_file() and beside.is_dir():
        return beside
    return cache_folder() / "data"
