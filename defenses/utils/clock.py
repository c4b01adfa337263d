"""Measure time."""

from __future__ import annotations

import time


def seconds_since(begin: float) -> float:
    """Return the seconds since `begin`, a value of `time.perf_counter`; 0 if the clock went back."""
    return max(0.0, time.perf_counter() - begin)
