"""Median size of the perturbation that an attack needs, with its interval; a failure counts as infinite."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr  # scipy.stats takes a second to import

from defenses.utils.arrays import F64


def median_perturbation(size: npt.ArrayLike, success: npt.ArrayLike) -> float:
    """Return the median size of the perturbation that an attack needs.

    Args:
        size: size of the perturbation per image, at least 0, [images].
        success: True where the attack succeeds, bool [images].

    Returns:
        The median; infinity if the attack fails on at least half of the images, NaN without images.
    """
    sizes = _sorted_sizes(size, success)
    if not len(sizes):
        return float("nan")
    # Not np.median: the lower and upper middle may be finite and infinite, or both infinite.
    low, high = float(sizes[(len(sizes) - 1) // 2]), float(sizes[len(sizes) // 2])
    return high if np.isinf(high) else (low + high) / 2


def median_interval(size: npt.ArrayLike, success: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Return a distribution-free interval of the median size over the population of images.

    Its ends are the j-th smallest and the j-th largest size, with the largest j for which the binomial probability
    that fewer than j of n sizes lie on one side of the median is small enough; ties make it conservative.

    Args:
        size: size of the perturbation per image, at least 0, [images].
        success: True where the attack succeeds, bool [images].
        confidence: in (0, 1).

    Returns:
        (low, high); 0 and infinity with too few images for any j (fewer than 6 at 95%), NaN without images.

    Source: Thompson 1936; David and Nagaraja 2003, 7.1.
    """
    sizes = _sorted_sizes(size, success)
    n, tail = len(sizes), (1 - confidence) / 2
    if not n:
        return float("nan"), float("nan")
    below = bisect_right(range(n // 2 + 1), tail, key=lambda fewer: float(bdtr(fewer, n, 0.5))) - 1
    return (0.0, float("inf")) if below < 0 else (float(sizes[below]), float(sizes[n - 1 - below]))


def _sorted_sizes(size: npt.ArrayLike, success: npt.ArrayLike) -> F64:
    return np.sort(np.where(np.asarray(success, bool), np.asarray(size, float), np.inf))
