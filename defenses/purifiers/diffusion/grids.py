"""Grids of times for samplers."""

from __future__ import annotations

import math


def even_grid(first: float, last: float, steps: int) -> tuple[float, ...]:
    """Return steps + 1 times from the first to the last, equally far apart."""
    return (*(first + (last - first) * k / steps for k in range(steps)), last)


def root_grid(first: float, last: float, steps: int) -> tuple[float, ...]:
    """Return steps + 1 times from the first to the last, with roots equally far apart."""
    roots = even_grid(math.sqrt(first), math.sqrt(last), steps)
    return (first, *(root**2 for root in roots[1:-1]), last)
