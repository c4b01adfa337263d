"""Cost of an attack or a verdict, counted at the networks."""

from __future__ import annotations

import time
from dataclasses import dataclass


def seconds_since(begin: float) -> float:
    """Return the seconds since a reading of `time.perf_counter`, at least 0."""
    return max(0.0, time.perf_counter() - begin)


@dataclass
class Cost:
    """Cost of a phase over a block of images.

    Args:
        seconds: of wall clock.
        forwards: images forward through networks.
        backwards: images back through networks.
        queries: images that the attack queried the view with.
        rows: limit of the batch, if memory ran out; else None.
    """

    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    queries: int = 0
    rows: int | None = None
