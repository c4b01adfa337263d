"""Paired comparison of two accuracies on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Paired:
    """Comparison of defense a with defense b on the same images.

    Args:
        difference: mean accuracy of a minus that of b, in [-1, 1].
        low: lower end of its confidence interval.
        high: upper end.
        p_value: McNemar's exact two-sided p for 0/1 outcomes; None for fractional ones.
        only_a: number of images on which a does better; expected number for fractional outcomes.
        only_b: the same for b.
        n: number of images.
    """

    difference: float
    low: float
    high: float
    p_value: float | None
    only_a: float
    only_b: float
    n: int


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike, *, confidence: float = 0.95) -> Paired:
    """Return the difference of two defenses on the same images, with its interval and test.

    The interval is Bonett and Price's, for differences of any size in [-1, 1]: z standard errors about the mean of
    the differences and of two more, +1 and -1. So it has width where all images agree, and unlike a bootstrap it keeps
    its coverage where few images differ. The variance of draws is in the fractions. Single outcomes, 0 or 1, have
    McNemar's exact test too.

    Args:
        a: share of right draws per image, [images] in [0, 1].
        b: share of the other defense, in the same order.
        confidence: in (0, 1).

    Returns:
        The comparison.

    Raises:
        ValueError: the shapes differ, or there are no images.

    Source: McNemar 1947; Bonett and Price 2012.
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError("both defenses need the same images, at least one")
    delta = first - second
    n, only_a, only_b = len(delta), float(np.maximum(delta, 0).sum()), float(np.maximum(-delta, 0).sum())
    p: float | None = None
    if np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all():
        from scipy.stats import binomtest  # slow to import

        p = float(binomtest(int(only_a), int(only_a + only_b)).pvalue) if only_a + only_b else 1.0
    centre = (only_a - only_b) / (n + 2)
    variance = (float(delta @ delta) + 2) / (n + 2) - centre**2
    half = NormalDist().inv_cdf((1 + confidence) / 2) * (variance / (n + 2)) ** 0.5
    return Paired(float(delta.mean()), max(-1.0, centre - half), min(1.0, centre + half), p, only_a, only_b, n)
