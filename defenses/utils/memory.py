"""Memory that a process can still get, on the CPU and on accelerators."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CGROUPS = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> float:
    """Return the bytes that this process can still get on a device, within its limits."""
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return min(available_memory(), _allowance())


def _allowance() -> float:
    """Return the bytes that the limit on the process's data leaves."""
    try:
        import resource
    except ImportError:  # Windows
        return float("inf")
    import psutil

    most = resource.getrlimit(resource.RLIMIT_DATA)[0]
    used = getattr(psutil.Process().memory_info(), "data", 0)
    return float("inf") if most < 0 else float(max(0, most - used))


def available_memory() -> float:
    """Return the bytes that processes can still get, of the machine and of their control group."""
    import psutil

    free = float(psutil.virtual_memory().available)
    for limit, used, cache in _group_files():
        free = min(free, max(0.0, _number(limit) - _number(used, 0.0) + _inactive(cache)))
    return free


def _group_files() -> list[tuple[Path, Path, Path]]:
    """Return (limit, usage, statistics) of this process's control groups up to the root; versions 2 and 1."""
    names = (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        for kind, limit, used in names:
            if kind in controllers.split(","):
                top = _CGROUPS / kind
                folders = [top / group.strip("/"), *(top / group.strip("/")).parents]
                inside = [f for f in folders if f == top or top in f.parents]
                files += [(f / limit, f / used, f / "memory.stat") for f in inside]
    return files


def _number(file: Path, absent: float = math.inf) -> float:
    try:
        return float(file.read_text())  # "max": no limit
    except (OSError, ValueError):
        return absent


def _inactive(file: Path) -> float:
    """Return the bytes of file cache that the kernel would free."""
    try:
        pairs = dict(line.split() for line in file.read_text().splitlines())
    except (OSError, ValueError):
        return 0.0
    return float(pairs.get("total_inactive_file", pairs.get("inactive_file", 0)))
