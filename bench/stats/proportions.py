"""The statistics behind every number: pure functions of counts, numpy alone (scipy where a test is exact).

"correct" is how many of n draws of one image were right: 0 or 1 of 1 for a deterministic defense. Images are the
unit of every interval: draws of one image are not independent evidence about other images.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from defenses.utils.arrays import F64, Bools


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


def majority(pred: npt.ArrayLike, label: npt.ArrayLike, counted: npt.ArrayLike | None = None) -> Bools:
    """Whether the majority vote of an image's draws is right. A tie with another class is wrong.

    Args:
        pred: predicted class per draw, int [images, draws]; a refusal is a class of its own, as -1.
        label: int [images].
        counted: bool [images, draws]; others do not vote. Default: all do.

    Returns:
        Bool [images]; False where nothing votes.
    """
    votes, y = np.asarray(pred), np.asarray(label)
    ballots = np.ones(votes.shape, bool) if counted is None else np.asarray(counted, bool)
    lowest = int(min(votes.min(), y.min())) if votes.size else 0
    classes = int(max(votes.max(), y.max())) - lowest + 1 if votes.size else 1
    out = np.zeros(len(votes), bool)
    per_pass = max(1, (1 << 22) // classes)  # memory
    for begin in range(0, len(votes) if votes.size else 0, per_pass):
        at = slice(begin, begin + per_pass)
        rows = np.arange(len(votes[at]))
        cast = (rows[:, None] * classes + (votes[at] - lowest))[ballots[at]]
        count = np.bincount(cast, minlength=len(rows) * classes).reshape(len(rows), classes)
        right = count[rows, y[at] - lowest]
        count[rows, y[at] - lowest] = 0
        out[at] = right > count.max(1)
    return out


def mean_logit(logits: npt.ArrayLike, label: npt.ArrayLike) -> Bools:
    """Whether the class with the highest mean logit is the label. A tie is wrong, and so is NaN.

    Args:
        logits: [images, draws, K].
        label: int [images].

    Returns:
        Bool [images].
    """
    mean = np.asarray(logits, np.float64).mean(1)
    at = np.arange(len(mean)), np.asarray(label)
    own = mean[at]
    mean[at] = -np.inf
    out: Bools = own > mean.max(1)
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


@dataclass(frozen=True)
class Paired:
    """Defense a against defense b on the same images.

    Args:
        difference: mean accuracy of a minus that of b.
        low: lower end of its confidence interval.
        high: upper end.
        p_value: McNemar's exact two-sided p for 0/1 outcomes; None for fractional ones.
        only_a: images (or expected share of images, summed) on which a does better.
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


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> Paired:  # noqa: ARG001
    """Compare two defenses on the same images.

    The interval is Bonett and Price's, written for differences of any size in [-1, 1]: z standard errors about the
    mean of the differences and two more, +1 and -1. So it has width where all images agree, and from 32 images on
    95% covers at least 93%, however few differ; a bootstrap over images falls below 60% [simulated]. What an image's
    draws add to the variance is in the fractions themselves. Single outcomes, 0 or 1, have McNemar's exact test too.

    Args:
        a: share of right draws per image, [images] in [0, 1].
        b: the same for the other defense, in the same order.
        confidence: in (0, 1).
        seed: of nothing: the interval is no bootstrap any more, and calls that name a seed stay valid.

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
        from scipy.stats import binomtest

        p = float(binomtest(int(only_a), int(only_a + only_b)).pvalue) if only_a + only_b else 1.0
    centre = (only_a - only_b) / (n + 2)
    variance = (float(delta @ delta) + 2) / (n + 2) - centre**2
    half = NormalDist().inv_cdf((1 + confidence) / 2) * (variance / (n + 2)) ** 0.5
    return Paired(float(delta.mean()), max(-1.0, centre - half), min(1.0, centre + half), p, only_a, only_b, n)
