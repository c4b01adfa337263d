"""Bootstrap intervals over images, and over trained models across them; and the variance by images and draws.

Which one to take: `over_images` for anything that is a number per image; `over_trainings` where the claim is about a
recipe and not about one trained model. Draws need no level of their own: what they add to the variance is in the
numbers of the images already, and drawing from them again would count it twice. Neither says anything where all images
agree, as 0 of 500: Wilson's interval does (`bench.stats.proportions.wilson`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from defenses.utils.arrays import F64

_CELLS = 1 << 20  # resampled values at once (memory)


@dataclass(frozen=True)
class Interval:
    """A mean over images with its confidence interval; the ends are NaN where resampling cannot tell them.

    Args:
        value: the mean.
        low: lower end.
        high: upper end.
        n: number of images.
    """

    value: float
    low: float
    high: float
    n: int


def over_images(
    values: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
    method: Literal["percentile", "BCa"] = "BCa",
) -> Interval:
    """Resample images: SciPy's bootstrap of a mean.

    Args:
        values: a number per image, [images]; a difference of two defenses for a paired interval.
        confidence: in (0, 1).
        seed: of the resampling.
        resamples: how many.
        method: "BCa" corrects for bias and skew, "percentile" does not.

    Raises:
        ValueError: no images.

    Source: Efron 1987 (BCa).
    """
    from scipy.stats import bootstrap

    given = _numbers(values, 1)
    n, mean = len(given), float(given.mean())
    if np.ptp(given) == 0:
        return Interval(mean, float("nan"), float("nan"), n)
    found = bootstrap(
        (given,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _CELLS // n),
        vectorized=True,
        confidence_level=confidence,
        method=method,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), n)


@dataclass(frozen=True)
class Split:
    """Where the variance of a share comes from.

    Args:
        images: variance of the images' true shares, sigma_b^2.
        draws: mean variance of one draw of an image, E[p (1 - p)]: n draws of each leave 1/n of it.
    """

    images: float
    draws: float


def variance_split(correct: npt.ArrayLike, draws: npt.ArrayLike) -> Split:
    """The two parts of the variance between the observed shares of images, unbiased (of images, at least 0).

    Args:
        correct: right draws per image, whole numbers, [images].
        draws: draws per image, at least 2; broadcast.

    Raises:
        ValueError: fewer than two images, or an image with fewer than two draws.

    Source: the one-way random effects model (Searle, Casella and McCulloch 1992, 3.5).
    """
    c, n = np.broadcast_arrays(_numbers(correct, 1), np.asarray(draws, float))
    if len(c) < 2 or np.any(n < 2):
        raise ValueError("a split of the variance needs two images and two draws of each")
    share = c / n
    one_draw = share * (1 - share) * n / (n - 1)
    return Split(max(0.0, float(share.var(ddof=1) - (one_draw / n).mean())), float(one_draw.mean()))


def over_trainings(
    shares: npt.ArrayLike,
    minus: npt.ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """Resample images, the same for all trained models, and let the trainings vary too; percentiles.

    With three or five trainings, resampling them would make the interval far too short (88% where 95% is said
    [simulated]): their part comes from Student's t instead, with trainings - 1 degrees of freedom. The interval covers
    95% where trainings differ much, and up to 99% where they do not. Of one training images alone are resampled.

    Args:
        shares: per training and image, [trainings, images] in [0, 1].
        minus: the same of another defense on the same images, whose trainings are others: the difference is meant.
        confidence: in (0, 1).
        seed: of the resampling.
        resamples: how many.

    Raises:
        ValueError: no training or image, or other images in `minus`.

    Source: crossed random effects, Owen 2007; the t of few groups, Behrens and Fisher (Fisher 1935).
    """
    sides = [_numbers(shares, 2)] + ([] if minus is None else [_numbers(minus, 2)])
    if len({side.shape[1] for side in sides}) > 1:
        raise ValueError("both defenses need the same images")
    per_image = sides[0].mean(0) - (sides[1].mean(0) if len(sides) > 1 else 0)
    n, rng = len(per_image), np.random.default_rng(seed)
    means = np.concatenate(
        [per_image[rng.integers(0, n, (size, n))].mean(1) for size in _passes(resamples, n)],
    )
    for side in sides:
        trained = len(side)
        if trained > 1:
            error = float(side.mean(1).std(ddof=1)) / np.sqrt(trained)
            means = means + error * rng.standard_t(trained - 1, resamples)
    return _percentiles(float(per_image.mean()), means, confidence, n)


def _numbers(values: npt.ArrayLike, axes: int) -> F64:
    given = np.asarray(values, float)
    if given.ndim != axes or not given.size:
        raise ValueError(f"values are needed, in {axes} ax{'e' if axes > 1 else 'i'}s, at least one")
    return given


def _passes(resamples: int, width: int) -> list[int]:
    per_pass = max(1, _CELLS // width)
    return [min(per_pass, resamples - i) for i in range(0, resamples, per_pass)]


def _percentiles(value: float, means: npt.NDArray[Any], confidence: float, n: int) -> Interval:
    if np.ptp(means) == 0:
        return Interval(value, float("nan"), float("nan"), n)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), n)
