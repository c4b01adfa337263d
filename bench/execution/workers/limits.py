"""What a run may use of the machine: time per cell, memory per worker, workers. Nothing here imports torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from defenses.utils.memory import available_memory

GIB = 1 << 30
_SHARE = 0.9  # of the memory that is available, for all workers together
_LEAST = 1.0  # GiB: below that a worker could not even load torch; the kernel has to judge then


@dataclass(frozen=True)
class Limits:
    """Limits of one worker process.

    Args:
        seconds: wall time of a cell; None: any.
        memory: resident memory of the process in GiB; None: any.
    """

    seconds: float | None = None
    memory: float | None = None


def default_memory(workers: int) -> float:
    """GiB that each of `workers` processes may hold: a share of what is available now."""
    return max(_LEAST, _SHARE * available_memory() / GIB / workers)


def all_workers(threads: int, device: str) -> int:
    """How many workers fill this machine: one for every `threads` physical cores, if there is memory; one on a GPU."""
    import psutil

    if device != "cpu":
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(psutil.cpu_count(logical=False) or usable, usable) // threads
    return max(1, min(cores, int(_SHARE * available_memory() / GIB / _LEAST)))
