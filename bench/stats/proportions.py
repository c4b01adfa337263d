"""The statistics behind every number: pure functions of counts, numpy alone (scipy where a test is exact).

"correct" is how many of n draws of one image were right: 0 or 1 of 1 for a deterministic defense. Images are the
unit of every interval: draws of one image are not independent evidence about other images.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from defenses.utils.arrays import F64


def wilson(successes: npt.ArrayLike, n: npt.ArrayLike, confidence: float = 0.95) -> tuple[F64, F64]:
    """Wilson's score interval for a proportion.

    With n = number of images and the sum of the images' fractions as `successes` it covers at least as often as it
    says for stochastic defenses (the variance of fractions is at most binomial); with images x draws it would not.
    All tables use it, for deterministic defenses too, so that intervals of one table compare; its coverage is right
    on average over p, and `clopper_pearson`'s at every p.

    Args:
        successes: in [0, n], whole or fractional; any shape.
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
    """Clopper and Pearson's exact interval for a proportion: it never covers less often than it says.

    For counts of single yes-or-no outcomes, as the images that a deterministic defense gets right, where the bound
    itself is the claim: "at most so many", "at least 95%". Tables use `wilson`, which is narrower and takes the
    fractions of stochastic defenses; an exact binomial interval has no meaning for those.

    Args:
        successes: whole numbers in [0, n]; any shape.
        n: number of outcomes, whole; broadcast.
        confidence: in (0, 1).

    Returns:
        (low, high), each in [0, 1]; NaN where n is 0.

    Raises:
        ValueError: successes outside [0, n] or fractional, or confidence outside (0, 1).

    Source: Clopper and Pearson 1934.
    """
    from scipy.stats import beta

    k, size = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must be between 0 and 1")
    if np.any(k < 0) or np.any(k > size) or np.any(k % 1) or np.any(size % 1):
        raise ValueError("successes must be whole numbers in [0, n]; wilson takes fractions")
    tail = (1 - confidence) / 2
    low = np.where(k == 0, 0.0, beta.ppf(tail, k, size - k + 1))
    high = np.where(k == size, 1.0, beta.isf(tail, k + 1, size - k))
    missing = size == 0
    return np.where(missing, np.nan, low), np.where(missing, np.nan, high)


def rob_at_m(correct: npt.ArrayLike, n: npt.ArrayLike, m: int) -> F64:
    """Rob(M): the chance that m draws of an image are all right, when the attacker may submit it m times.

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
    """The sample standard deviation, as of a number over seeds of training; NaN for fewer than two values.

    Args:
        values: [seeds].
    """
    given = np.asarray(values, float)
    return float(np.std(given, ddof=1)) if len(given) > 1 else float("nan")


@dataclass(frozen=True)
class Rate:
    """A share with its parts; `value` is NaN when the denominator is 0."""

    numerator: float
    denominator: float

    @property
    def value(self) -> float:
        """Numerator over denominator."""
        return self.numerator / self.denominator if self.denominator else float("nan")


def attack_success_rate(clean: npt.ArrayLike, newly_wrong: npt.ArrayLike) -> Rate:
    """Newly wrong over originally correct.

    For a stochastic defense both are shares of draws, and the parts are expected numbers of images.

    Args:
        clean: share of right draws on the clean image, [images] in [0, 1].
        newly_wrong: share of draws in which the clean image is right and the attack has what it wants (a wrong class,
            or its target), counted draw by draw since both images share them, [images] in [0, clean].
    """
    return Rate(float(np.sum(newly_wrong)), float(np.sum(clean)))
