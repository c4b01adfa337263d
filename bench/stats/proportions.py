"""Proportions of images: confidence intervals, Rob(M), attack success rate.

"correct" is the number of right draws among n draws of one image: 0 or 1 of 1 for a deterministic defense. Images are
the unit of every interval: draws of one image are no independent evidence about other images.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from defenses.utils.arrays import F64


def wilson(successes: npt.ArrayLike, n: npt.ArrayLike, confidence: float = 0.95) -> tuple[F64, F64]:
    """Return Wilson's score interval for a proportion.

    For stochastic defenses pass the sum of the images' fractions as `successes` and the number of images as n: the
    variance of fractions is at most binomial, so coverage is at least nominal; n = images x draws would not have it.
    All tables use it, for deterministic defenses too, so that intervals of one table compare. Its coverage is nominal
    on average over p; `clopper_pearson` has it at every p.

    Args:
        successes: number of successes, whole or fractional, in [0, n]; any shape.
        n: number of images; broadcast.
        confidence: in (0, 1).

    Returns:
        (low, high), each in [0, 1]; NaN where n is 0.

    Raises:
        ValueError: successes outside [0, n], or confidence outside (0, 1).

    Source: Wilson 1927.
    """
    k, size = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must be between 0 and 1")
    if np.any(k < 0) or np.any(k > size * (1 + 1e-12)):
        raise ValueError("successes must lie in [0, n]")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.minimum(k / size, 1)
        centre = (p + z**2 / (2 * size)) / (1 + z**2 / size)
        half = z / (1 + z**2 / size) * np.sqrt(p * (1 - p) / size + z**2 / (4 * size**2))
        # The ends are exact where rounding would leave 1e-17.
        low = np.where(p == 0, 0.0, np.clip(centre - half, 0, 1))
        high = np.where(p == 1, 1.0, np.clip(centre + half, 0, 1))
    missing = size == 0
    return np.where(missing, np.nan, low), np.where(missing, np.nan, high)


def clopper_pearson(successes: npt.ArrayLike, n: npt.ArrayLike, confidence: float = 0.95) -> tuple[F64, F64]:
    """Return Clopper and Pearson's exact interval for a proportion, whose coverage is at least nominal at every p.

    Use it for counts of binary outcomes where the bound itself is the claim, as the images that a deterministic
    defense gets right. Tables use `wilson`, which is narrower and takes the fractions of stochastic defenses; an exact
    binomial interval is undefined for those.

    Args:
        successes: number of successes, whole, in [0, n]; any shape.
        n: number of outcomes, whole; broadcast.
        confidence: in (0, 1).

    Returns:
        (low, high), each in [0, 1]; NaN where n is 0.

    Raises:
        ValueError: successes outside [0, n] or fractional, or confidence outside (0, 1).

    Source: Clopper and Pearson 1934.
    """
    from scipy.stats import beta  # slow to import

    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must be between 0 and 1")
    tail = (1 - confidence) / 2
    low = clopper_pearson_lower(successes, n, tail)
    k, size = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    high = np.where(k == size, 1.0, beta.isf(tail, k + 1, size - k))
    return low, np.where(size == 0, np.nan, high)


def clopper_pearson_lower(successes: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> F64:
    """Return Clopper and Pearson's one-sided lower bound of a proportion.

    Args:
        successes: number of successes, whole, in [0, n]; any shape.
        n: number of outcomes, whole; broadcast.
        alpha: probability that the bound exceeds the proportion, at most; in (0, 1).

    Returns:
        In [0, 1]; NaN where n is 0.

    Raises:
        ValueError: successes outside [0, n] or fractional.

    Source: Clopper and Pearson 1934.
    """
    from scipy.stats import beta  # slow to import

    k, size = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    if np.any(k < 0) or np.any(k > size) or np.any(k % 1) or np.any(size % 1):
        raise ValueError("successes must be whole numbers in [0, n]; wilson takes fractions")
    low = np.where(k == 0, 0.0, beta.ppf(alpha, k, size - k + 1))
    return np.where(size == 0, np.nan, low)


def rob_at_m(correct: npt.ArrayLike, n: npt.ArrayLike, m: int) -> F64:
    """Return Rob(M): the probability that an image is right in all of m submissions.

    C(correct, m) / C(n, m), which is unbiased; (correct / n)^m is biased upward.

    Args:
        correct: right draws per image, whole numbers in [0, n]; any shape.
        n: draws per image; broadcast.
        m: number of submissions, at least 1.

    Returns:
        Per image, in [0, 1].

    Raises:
        ValueError: fewer than m draws, m below 1, or counts outside [0, n].
    """
    c, size = np.broadcast_arrays(np.asarray(correct, float), np.asarray(n, float))
    if m < 1 or np.any(size < m):
        raise ValueError(f"Rob({m}) needs m >= 1 and at least {m} draws of every image")
    if np.any(c < 0) or np.any(c > size):
        raise ValueError("correct must lie in [0, n]")
    out = np.ones(c.shape)
    for i in range(m):
        out *= np.maximum(c - i, 0) / (size - i)
    return out


def spread(values: npt.ArrayLike) -> float:
    """Return the sample standard deviation, as over training seeds.

    Args:
        values: one number per seed, [seeds].

    Returns:
        At least 0; NaN for fewer than two values.
    """
    array = np.asarray(values, float)
    return float(np.std(array, ddof=1)) if len(array) > 1 else float("nan")


@dataclass(frozen=True)
class Rate:
    """A ratio of two numbers of images, which may be expected numbers."""

    numerator: float
    denominator: float

    @property
    def value(self) -> float:
        """Numerator over denominator; NaN if the denominator is 0."""
        return self.numerator / self.denominator if self.denominator else float("nan")


def attack_success_rate(clean: npt.ArrayLike, newly_wrong: npt.ArrayLike) -> Rate:
    """Return the attack success rate: images newly wrong over images originally right.

    For a stochastic defense both are shares of draws, and their sums are expected numbers of images.

    Args:
        clean: share of right draws on the clean image, [images] in [0, 1].
        newly_wrong: share of draws in which the clean image is right and the attack succeeds (gives a wrong class, or
            its target), counted draw by draw since both images share them, [images] in [0, clean].

    Returns:
        The rate; its value is NaN if no image is right originally.
    """
    return Rate(float(np.sum(newly_wrong)), float(np.sum(clean)))
