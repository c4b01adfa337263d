"""Paired comparison of two accuracies on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from defenses.utils.arrays import F64


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
    low, high = _bonett_price(only_a - only_b, float(delta @ delta), n, confidence)
    return Paired(float(delta.mean()), float(low), float(high), p, only_a, only_b, n)


def all_paired_differences(values: npt.ArrayLike, *, confidence: float = 0.95) -> tuple[F64, F64, F64]:
    """Return the differences of all pairs of defenses with their intervals, each that of `paired_difference`.

    Args:
        values: share of right draws per image and defense, [images, defenses] in [0, 1].
        confidence: of each interval, in (0, 1).

    Returns:
        (difference, low, high), float64 [defenses, defenses]: of the defense of the row minus that of the column.

    Raises:
        ValueError: no image, or a share that is NaN or outside [0, 1].
    """
    shares = np.asarray(values, float)
    if shares.ndim != 2 or not len(shares):
        raise ValueError("shares are needed by image and defense, of at least one image")
    if not ((shares >= 0) & (shares <= 1)).all():  # NaN too
        raise ValueError("every image needs a share in [0, 1] for every defense")
    sums, products = shares.sum(0), shares.T @ shares
    squares = np.maximum(np.diag(products)[:, None] + np.diag(products) - 2 * products, 0)
    total = sums[:, None] - sums
    return total / len(shares), *_bonett_price(total, squares, len(shares), confidence)


def _bonett_price(total: npt.ArrayLike, squares: npt.ArrayLike, n: int, confidence: float) -> tuple[F64, F64]:
    """Return the ends of the interval of a mean difference, from the sum of the differences and of their squares."""
    centre = np.asarray(total, float) / (n + 2)
    variance = (np.asarray(squares, float) + 2) / (n + 2) - centre**2
    half = NormalDist().inv_cdf((1 + confidence) / 2) * (variance / (n + 2)) ** 0.5
    return np.maximum(-1.0, centre - half), np.minimum(1.0, centre + half)
