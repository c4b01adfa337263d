"""Sample sizes, detectable differences and power of comparisons of accuracies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from bench.stats.bootstrap import Split

MAX_WIDENING = 0.05  # of an interval by its draws; more draws are recommended above it
_MAX_IMAGES = 100_000_000


def difference(text: str) -> float:
    """Read a difference of accuracies, as "3pp", "3%" or ".03".

    Returns:
        A share in (0, 1).

    Raises:
        UserError: the text is no difference in that range.
    """
    number = text.strip().lower()
    unit = next((u for u in ("pp", "%") if number.endswith(u)), "")
    try:
        value = float(number.removesuffix(unit)) / (100 if unit else 1)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise UserError(f'"{text}" is no difference between 0 and 100 points; write 3pp, 3% or .03')
    return value


@dataclass(frozen=True)
class Question:
    """Requirements of a comparison, fixed before it is run.

    Args:
        detect: difference of two accuracies to detect, in (0, 1).
        power: probability of detecting a difference of that size, in (alpha, 1).
        alpha: probability of detecting one where there is none (two-sided), in (0, 1).
        discordance: share of images on which two defenses differ, in [detect, 1).
        accuracy: upper one of the two accuracies, in (0, 1); most images are needed near 1/2.

    Raises:
        UserError: a number out of its range.
    """

    detect: float
    power: float = 0.8
    alpha: float = 0.05
    discordance: float = 0.1
    accuracy: float = 0.5

    def __post_init__(self) -> None:
        for name in ("detect", "power", "alpha", "discordance", "accuracy"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise UserError(f"{name} is {value}; it must lie between 0 and 1")
        if self.power <= self.alpha:
            raise UserError(f"the power {self.power} is no more than alpha {self.alpha}; take 0.8, say")
        if self.discordance < self.detect:
            raise UserError(
                f"a difference of {points(self.detect)} points needs as many images on which the defenses differ; "
                f"set the discordance to at least {self.detect:g}"
            )

    def check_size(self) -> None:
        """Refuse a difference that takes too many images to detect.

        Raises:
            UserError: the difference is too small.
        """
        if (needed := max(unpaired(self), paired(self))) > _MAX_IMAGES:
            problem = f"{points(self.detect)} points take {needed:.1e} images, more than {_MAX_IMAGES:,}"
            raise UserError(f"{problem}; ask for a larger difference")

    @property
    def quantiles(self) -> tuple[float, float]:
        """Normal quantiles of 1 - alpha / 2 and of the power."""
        normal = NormalDist()
        return normal.inv_cdf(1 - self.alpha / 2), normal.inv_cdf(self.power)


def unpaired(question: Question) -> int:
    """Return the images needed for each of two defenses that are judged on different images.

    Source: the normal approximation for two proportions, Fleiss, Levin and Paik 2003, 4.2, without correction.
    """
    z, z_power = question.quantiles
    low = max(0.0, question.accuracy - question.detect)
    p = (low, min(1.0, low + question.detect))
    mean = sum(p) / 2
    variance = sum(x * (1 - x) for x in p)
    needed = (z * math.sqrt(2 * mean * (1 - mean)) + z_power * math.sqrt(variance)) ** 2 / question.detect**2
    return max(2, math.ceil(needed))


def paired(question: Question) -> int:
    """Return the images needed for two defenses that are judged on the same images and compared by McNemar's test.

    Source: Connor 1987; Miettinen 1968.
    """
    z, z_power = question.quantiles
    discordance, delta = question.discordance, question.detect
    needed = (z * math.sqrt(discordance) + z_power * math.sqrt(discordance - delta**2)) ** 2 / delta**2
    return max(2, math.ceil(needed))


def exact_power(question: Question, images: int) -> float:
    """Return the exact power of McNemar's exact test, which is below that of the normal approximation.

    Args:
        question: requirements; the power is not used.
        images: number of images that both defenses are judged on.

    Returns:
        The power, in [0, 1].
    """
    from scipy.stats import binom  # slow to import

    sizes = np.arange(images + 1)
    weight = binom.pmf(sizes, images, question.discordance)
    sizes, weight = sizes[weight > 1e-12], weight[weight > 1e-12]
    # The test is significant if at most `most` of the discordant images lie on either side.
    most = binom.ppf(question.alpha / 2, sizes, 0.5)
    most = np.where(binom.cdf(most, sizes, 0.5) > question.alpha / 2, most - 1, most)
    share = (1 + question.detect / question.discordance) / 2
    power = binom.cdf(most, sizes, share) + binom.sf(sizes - most - 1, sizes, share)
    return float((weight * power).sum())


def detectable(question: Question, images: int, *, same: bool) -> float | None:
    """Return the smallest difference that a number of images detects with the required power.

    Args:
        question: requirements; `detect` is not used.
        images: number of images of each defense.
        same: True if both defenses are judged on the same images.

    Returns:
        The difference, in (0, 1); None if no difference is detectable.
    """
    largest = question.discordance if same else 1 - 1e-9
    needed = paired if same else unpaired
    low, high = 0.0, largest
    if needed(replace(question, detect=high, discordance=max(high, question.discordance))) > images:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        candidate = replace(question, detect=middle, discordance=max(middle, question.discordance))
        low, high = (low, middle) if needed(candidate) <= images else (middle, high)
    return high


def widening(split: Split, draws: int) -> float:
    """Return the relative widening of an interval over images by finitely many draws (0.05: 5% wider).

    Args:
        split: components of the variance.
        draws: number of draws per image, at least 1.

    Returns:
        At least 0; infinity if images do not differ.
    """
    return math.sqrt(1 + split.draws / (draws * split.images)) - 1 if split.images else math.inf


def draws_worth(split: Split, wider: float = MAX_WIDENING) -> int | None:
    """Return the smallest odd number of draws that widens the interval by at most `wider`.

    Rob(M), which needs M draws, and decisions per image may need more.

    Args:
        split: components of the variance; see `bench.stats.bootstrap.variance_split`.
        wider: largest relative widening, more than 0.

    Returns:
        The number of draws; None if images do not differ.

    Source: two-stage sampling, Cochran 1977, 10.3.
    """
    if not split.images:
        return None
    needed = math.ceil(split.draws / split.images / ((1 + wider) ** 2 - 1) - 1e-9)
    return max(1, needed + 1 - needed % 2)


def points(share: float) -> str:
    """Return a share in percentage points, with three significant digits."""
    return f"{100 * share:.3g}"
