"""Sample sizes, detectable differences and power of comparisons of accuracies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from bench.stats.bootstrap import Split

_WIDER = 0.05  # by so much draws may widen an interval before more of them are worth having
_MOST = 100_000_000  # images


def difference(text: str) -> float:
    """A difference of accuracies, as "3pp", "3%" or ".03": a share in (0, 1).

    Raises:
        UserError: it is none.
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
    """What a comparison has to show, fixed before it is run.

    Args:
        detect: difference of two accuracies, in (0, 1).
        power: chance to find a difference of that size.
        alpha: chance to find one where there is none (two-sided).
        discordance: share of images on which two defenses differ; more than `detect`, of which it is a part.
        accuracy: around which the two lie; images are needed most at 1/2.

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
                f"a difference of {_points(self.detect)} points needs as many images on which the defenses differ; "
                f"set the discordance to at least {self.detect:g}"
            )

    def check_size(self) -> None:
        """Refuse what takes more images than anybody has.

        Raises:
            UserError: the difference is too small.
        """
        if (needed := max(unpaired(self), paired(self))) > _MOST:
            said = f"{_points(self.detect)} points take {needed:.1e} images, more than {_MOST:,}"
            raise UserError(f"{said}; ask for a larger difference")

    @property
    def _z(self) -> tuple[float, float]:
        normal = NormalDist()
        return normal.inv_cdf(1 - self.alpha / 2), normal.inv_cdf(self.power)


def unpaired(question: Question) -> int:
    """Images for each of two defenses that are judged on different images.

    Source: the normal approximation for two proportions, Fleiss, Levin and Paik 2003, 4.2, without correction.
    """
    z, power = question._z
    low = max(0.0, question.accuracy - question.detect)
    p = (low, min(1.0, low + question.detect))
    mean = sum(p) / 2
    apart = sum(x * (1 - x) for x in p)
    needed = (z * math.sqrt(2 * mean * (1 - mean)) + power * math.sqrt(apart)) ** 2 / question.detect**2
    return max(2, math.ceil(needed))


def paired(question: Question) -> int:
    """Images for two defenses that are judged on the same images, and compared by McNemar's test.

    Source: Connor 1987; Miettinen 1968.
    """
    z, power = question._z
    differ, delta = question.discordance, question.detect
    needed = (z * math.sqrt(differ) + power * math.sqrt(differ - delta**2)) ** 2 / delta**2
    return max(2, math.ceil(needed))


def exact_power(question: Question, images: int) -> float:
    """The power that McNemar's exact test has on so many images, counted out: less than the approximation promises.

    Args:
        question: of which the power is not used.
        images: judged by both defenses.
    """
    import numpy as np
    from scipy.stats import binom

    sizes = np.arange(images + 1)
    weight = binom.pmf(sizes, images, question.discordance)
    sizes, weight = sizes[weight > 1e-12], weight[weight > 1e-12]
    # Of so many discordant images, significant are at most `most` on the one side, or on the other.
    most = binom.ppf(question.alpha / 2, sizes, 0.5)
    most = np.where(binom.cdf(most, sizes, 0.5) > question.alpha / 2, most - 1, most)
    share = (1 + question.detect / question.discordance) / 2
    found = binom.cdf(most, sizes, share) + binom.sf(sizes - most - 1, sizes, share)
    return float((weight * found).sum())


def detectable(question: Question, images: int, *, same: bool) -> float | None:
    """The smallest difference that so many images show with the power asked for; None: not any.

    Args:
        question: of which `detect` is not used.
        images: of each defense.
        same: whether both are judged on the same images.
    """
    from dataclasses import replace

    largest = question.discordance if same else 1 - 1e-9
    needed = paired if same else unpaired
    low, high = 0.0, largest
    if needed(replace(question, detect=high, discordance=max(high, question.discordance))) > images:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        asked = replace(question, detect=middle, discordance=max(middle, question.discordance))
        low, high = (low, middle) if needed(asked) <= images else (middle, high)
    return high


def widening(split: Split, draws: int) -> float:
    """By how much an interval over images is wider with so many draws than with no end of them (.05: by 5%)."""
    return math.sqrt(1 + split.draws / (draws * split.images)) - 1 if split.images else math.inf


def draws_worth(split: Split, wider: float = _WIDER) -> int | None:
    """The smallest odd number of draws that widens the interval by at most `wider`; None: images do not differ.

    More are for Rob(M), which needs M of them, and for decisions per image.

    Args:
        split: of the variance; see `bench.stats.bootstrap.variance_split`.
        wider: more than 0.

    Source: two-stage sampling, Cochran 1977, 10.3.
    """
    if not split.images:
        return None
    needed = math.ceil(split.draws / split.images / ((1 + wider) ** 2 - 1) - 1e-9)
    return max(1, needed + 1 - needed % 2)


def _points(share: float) -> str:
    return f"{100 * share:.3g}"
