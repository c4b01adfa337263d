"""Limits of worker processes: time per cell, memory per worker, number of workers. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from defenses.utils.memory import available_memory

GIB = 1 << 30
_SHARE = 0.9  # of the available memory, for all workers together
_LEAST = 1.0  # GiB; with less a worker cannot load torch


@dataclass(frozen=True)
class Limits:
    """Limits of one worker process.

    Args:
        seconds: wall time of a cell; None: no limit.
        memory: resident memory of the process in GiB; None: no limit.
    """

    seconds: float | None = None
    memory: float | None = None


def default_memory(workers: int) -> float:
    """Return the GiB that each of `workers` processes may hold: an equal share of the memory available now."""
    return max(_LEAST, _SHARE * available_memory() / GIB / workers)


def least_memory(shares: Sequence[float]) -> float:
    """Return the GiB that each worker of a cluster may hold, the least share of a node's, so that all nodes have room.

    Args:
        shares: GiB of each node by the workers that its other resources allow.
    """
    return max(_LEAST, min(shares, default=_LEAST))


def all_workers(threads: int, device: str, least: float = _LEAST) -> int:
    """Return the number of workers that fill this machine.

    Args:
        threads: torch threads of each worker.
        device: where models run; on an accelerator one worker fills it.
        least: GiB that each must have.

    Returns:
        One worker for every `threads` physical cores, as far as there is memory; at least 1.
    """
    if device != "cpu":
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(psutil.cpu_count(logical=False) or usable, usable) // threads
    return max(1, min(cores, int(_SHARE * available_memory() / GIB / least)))
