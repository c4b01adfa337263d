"""Bootstrap intervals over images and over trained models, and the split of the variance into images and draws.

Use `over_images` for one number per image, and `over_trainings` where the claim is about a recipe rather than one
trained model. Draws are not resampled: their variance is already in the numbers of the images and would count twice.
Where all images agree, as at 0 of 500, only Wilson's interval is defined (`bench.stats.proportions.wilson`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from defenses.utils.arrays import F64

_VALUES_PER_PASS = 1 << 20  # resampled values held in memory at once


@dataclass(frozen=True)
class Interval:
    """A mean over images with its confidence interval; the ends are NaN where all images agree.

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
    """Return the mean over images with its interval by SciPy's bootstrap.

    Args:
        values: a number per image, [images]; the difference of two defenses for a paired interval.
        confidence: in (0, 1).
        seed: of the resampling.
        resamples: number of resamples.
        method: "BCa" corrects for bias and skew, "percentile" does not.

    Returns:
        The interval; its ends are NaN where all images agree.

    Raises:
        ValueError: no images.

    Source: Efron 1987 (BCa).
    """
    from scipy.stats import bootstrap  # slow to import

    per_image = _checked_array(values, 1)
    n, mean = len(per_image), float(per_image.mean())
    if np.ptp(per_image) == 0:
        return Interval(mean, float("nan"), float("nan"), n)
    interval = bootstrap(
        (per_image,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _VALUES_PER_PASS // n),
        vectorized=True,
        confidence_level=confidence,
        method=method,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high), n)


@dataclass(frozen=True)
class Split:
    """Components of the variance of a share of right draws.

    Args:
        images: variance of the images' true shares, sigma_b^2.
        draws: mean variance of one draw of an image, E[p (1 - p)]; with n draws of each image, 1/n of it remains.
    """

    images: float
    draws: float


def variance_split(correct: npt.ArrayLike, draws: npt.ArrayLike) -> Split:
    """Split the variance of the observed shares into images and draws, unbiased; the part of images is at least 0.

    Args:
        correct: right draws per image, whole numbers, [images].
        draws: draws per image, at least 2; broadcast.

    Returns:
        Both components.

    Raises:
        ValueError: fewer than two images, or an image with fewer than two draws.

    Source: the one-way random effects model (Searle, Casella and McCulloch 1992, 3.5).
    """
    c, n = np.broadcast_arrays(_checked_array(correct, 1), np.asarray(draws, float))
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
    """Return the mean over images and trainings with its percentile interval.

    Images are resampled, the same ones for all trained models. Three or five trainings are too few to resample, so
    their variation is drawn from Student's t with trainings - 1 degrees of freedom; the interval is conservative where
    trainings differ little. With one training, only images vary.

    Args:
        shares: per training and image, [trainings, images] in [0, 1].
        minus: shares of another defense on the same images, trained independently; the result is the difference.
        confidence: in (0, 1).
        seed: of the resampling.
        resamples: number of resamples.

    Returns:
        The interval; its ends are NaN where all resampled means agree.

    Raises:
        ValueError: no training or image, or other images in `minus`.

    Source: crossed random effects, Owen 2007; the t of few groups, Behrens and Fisher (Fisher 1935).
    """
    sides = [_checked_array(shares, 2)] + ([] if minus is None else [_checked_array(minus, 2)])
    if len({side.shape[1] for side in sides}) > 1:
        raise ValueError("both defenses need the same images")
    per_image = sides[0].mean(0) - (sides[1].mean(0) if len(sides) > 1 else 0)
    n, rng = len(per_image), np.random.default_rng(seed)
    means = np.concatenate(
        [per_image[rng.integers(0, n, (size, n))].mean(1) for size in _pass_sizes(resamples, n)],
    )
    for side in sides:
        trainings = len(side)
        if trainings > 1:
            error = float(side.mean(1).std(ddof=1)) / np.sqrt(trainings)
            means = means + error * rng.standard_t(trainings - 1, resamples)
    return _percentile_interval(float(per_image.mean()), means, confidence, n)


def all_over_trainings(
    sides: Sequence[npt.ArrayLike], *, confidence: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[F64, F64]:
    """Return the intervals of the differences of all pairs of defenses, each as by `over_trainings`.

    All pairs share the resampled images, so that many pairs take little longer than one.

    Args:
        sides: shares of each defense per training and image, [trainings, images] in [0, 1]; of the same images.
        confidence: of each interval, in (0, 1).
        seed: of the resampling.
        resamples: number of resamples.

    Returns:
        (low, high), float64 [defenses, defenses]: of the defense of the row minus that of the column; NaN where all
        resampled means agree.

    Raises:
        ValueError: no training or image, or other images.
    """
    shares = [_checked_array(side, 2) for side in sides]
    if len({side.shape[1] for side in shares}) > 1:
        raise ValueError("all defenses need the same images")
    per_image = np.stack([side.mean(0) for side in shares], axis=1)
    n, rng = len(per_image), np.random.default_rng(seed)
    means = np.concatenate([_resampled(per_image, rng, size) for size in _pass_sizes(resamples, n)])
    for at, side in enumerate(shares):
        if len(side) > 1:
            error = float(side.mean(1).std(ddof=1)) / np.sqrt(len(side))
            means[:, at] += error * rng.standard_t(len(side) - 1, resamples)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = (np.empty((len(shares), len(shares))) for _ in ends)
    for at in range(len(shares)):
        differences = means[:, [at]] - means
        low[at], high[at] = np.where(np.ptp(differences, axis=0) == 0, np.nan, np.quantile(differences, ends, axis=0))
    return low, high


def _resampled(per_image: F64, rng: np.random.Generator, size: int) -> F64:
    """Return the means of resampled images, [size, defenses], of values by image and defense."""
    n = len(per_image)
    drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
    return np.asarray(counts @ per_image / n)


def _checked_array(values: npt.ArrayLike, axes: int) -> F64:
    array = np.asarray(values, float)
    if array.ndim != axes or not array.size:
        raise ValueError(f"values are needed, in {axes} ax{'e' if axes > 1 else 'i'}s, at least one")
    return array


def _pass_sizes(resamples: int, width: int) -> list[int]:
    per_pass = max(1, _VALUES_PER_PASS // width)
    return [min(per_pass, resamples - i) for i in range(0, resamples, per_pass)]


def _percentile_interval(value: float, means: npt.NDArray[Any], confidence: float, n: int) -> Interval:
    if np.ptp(means) == 0:
        return Interval(value, float("nan"), float("nan"), n)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), n)
