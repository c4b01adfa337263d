"""What a run may use of the machine: time per cell, memory per worker, workers. Nothing here imports torch."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from defenses.utils.errors import UserError

GIB = 1 << 30
_SHARE = 0.9  # of the memory that is available, for all workers together
_LEAST = 1.0  # GiB: below that a worker could not even load torch; the kernel has to judge then
_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600}
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Limits:
    """Limits of one worker process.

    Args:
        seconds: wall time of a cell; None: any.
        memory: resident memory of the process in GiB; None: any.
    """

    seconds: float | None = None
    memory: float | None = None


def duration(text: str | float) -> float:
    """Seconds from 600, "600", "90 s", "10min" or "1.5h".

    Raises:
        UserError: it is none of these, or not positive.
    """
    found = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)", str(text).strip().lower())
    try:
        value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    except (KeyError, ValueError):
        value = 0.0
    if not (0 < value < math.inf):
        raise UserError(f'the time limit is {text!r}; write seconds, or "10min" or "2h"')
    return value


def default_memory(workers: int) -> float:
    """GiB that each of `workers` processes may hold: a share of what is available now."""
    return max(_LEAST, _SHARE * available_memory() / GIB / workers)


def available_memory() -> float:
    """Bytes that processes can still get here: of the machine, and of the control group they are in."""
    import psutil  # type: ignore[import-untyped]

    free = float(psutil.virtual_memory().available)
    for limit, used, cache in _group_files():
        free = min(free, max(0.0, _number(limit) - _number(used, 0.0) + _inactive(cache)))
    return free


def _group_files() -> list[tuple[Path, Path, Path]]:
    """(limit, usage, statistics) of this process's control groups, from its own to the root; versions 2 and 1."""
    names = (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        for kind, limit, used in names:
            if kind in controllers.split(","):
                top = _CGROUPS / kind
                folders = [top / own.strip("/"), *(top / own.strip("/")).parents]
                inside = [f for f in folders if f == top or top in f.parents]
                found += [(f / limit, f / used, f / "memory.stat") for f in inside]
    return found


def _number(file: Path, absent: float = math.inf) -> float:
    try:
        return float(file.read_text())  # "max" is none
    except (OSError, ValueError):
        return absent


def _inactive(file: Path) -> float:
    """Bytes of file cache that the kernel would give back."""
    try:
        pairs = dict(line.split() for line in file.read_text().splitlines())
    except (OSError, ValueError):
        return 0.0
    return float(pairs.get("total_inactive_file", pairs.get("inactive_file", 0)))


def all_workers(threads: int, device: str) -> int:
    """How many workers fill this machine: one for every `threads` physical cores, if there is memory; one on a GPU."""
    import psutil

    if device != "cpu":
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(psutil.cpu_count(logical=False) or usable, usable) // threads
    return max(1, min(cores, int(_SHARE * available_memory() / GIB / _LEAST)))
