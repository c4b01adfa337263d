"""Certified radii of smoothed classifiers (Cohen, Rosenfeld, Kolter, ICML 2019, arXiv 1902.02918)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose
from statistics import NormalDist

import torch
from torch import Tensor

from defenses.core.defense import Defense, Foreign
from defenses.core.noise import Noise
from defenses.utils.errors import UserError

_SMOOTH, _CHOICE, _ESTIMATE = 0x534D4F4F, 0, 1  # names of noise streams
ABSTAIN = -1


@dataclass(frozen=True)
class CertificationProtocol:
    """How radii are certified.

    Args:
        sigma: standard deviation of the Gaussian noise, in pixels of [0, 1].
        n0: draws that choose the class.
        n: draws that estimate its probability.
        alpha: chance that a certificate is wrong, at most.

    Raises:
        UserError: a number outside its range.
    """

    sigma: float
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise UserError(f"sigma is {self.sigma}; it must be above 0")
        for name in ("n0", "n"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.alpha < 1:
            raise UserError(f"alpha is {self.alpha}; it must lie between 0 and 1")

    @property
    def largest(self) -> float:
        """The radius that is certified where all n draws agree: no certificate reaches further."""
        return self.sigma * NormalDist().inv_cdf(self.alpha ** (1 / self.n)) if self.alpha ** (1 / self.n) > 0.5 else 0


@dataclass(frozen=True)
class Radius:
    """What is certified for one image.

    Args:
        prediction: the class; `ABSTAIN` where none is certified.
        radius: L2 distance within which the smoothed prediction is that class with confidence 1 - alpha; 0 where it
            abstains.
        chosen: the class that n0 draws chose.
        count: how many of n further draws gave it.
        low: Clopper and Pearson's lower bound of its probability.
    """

    prediction: int
    radius: float
    chosen: int
    count: int
    low: float


def radius_of(chosen: int, count: int, protocol: CertificationProtocol) -> Radius:
    """The certificate that counts give; abstention where the bound is not above one half.

    Clopper and Pearson's lower bound at level alpha of the class's probability, and sigma times its normal quantile.

    Args:
        chosen: a class chosen without the draws that are counted.
        count: how many of the protocol's n draws gave it.
        protocol: how.
    """
    from scipy.stats import beta

    low = float(beta.ppf(protocol.alpha, count, protocol.n - count + 1)) if count else 0.0
    if low <= 0.5:
        return Radius(ABSTAIN, 0.0, chosen, count, low)
    return Radius(chosen, protocol.sigma * NormalDist().inv_cdf(low), chosen, count, low)


def certified(
    base: Defense, x: Tensor, indices: Tensor, protocol: CertificationProtocol, *, seed: int = 0, batch: int = 1000
) -> Iterator[Radius]:
    """Certify images one after another.

    Draw d of image i has noise of its own, keyed by (seed, i, d): counts depend neither on the batch nor on which
    other images are certified, but for logits that tie to rounding.

    Args:
        base: one draw of it is f(x + N(0, sigma^2)), with any f, random or not: a defense whose purifier starts with
            `defenses.filters.gaussian_noise` of the protocol's sigma, or with `denoise-once`, which brings that noise;
            it combines no runs.
        x: images, float32 [N, C, H, W] in [0, 1], on the device of `base`.
        indices: their numbers in the data set, int64 [N].
        protocol: how.
        seed: of the noise.
        batch: draws at once.

    Yields:
        For each image, in order.

    Raises:
        UserError: `base` is not of that form, or returns logits that are not finite.
    """
    check_form(base, protocol.sigma)
    for image, index in zip(x, indices, strict=True):
        own = Noise.of(seed, index.view(1), x.device).child(_SMOOTH)
        chosen = int(_counts(base, image, own.child(_CHOICE), protocol.n0, batch).argmax())
        found = _counts(base, image, own.child(_ESTIMATE), protocol.n, batch)
        yield radius_of(chosen, int(found[chosen]), protocol)


def check_form(base: Defense, sigma: float) -> None:
    """Refuse what is not one function of x + N(0, sigma^2).

    Raises:
        UserError: it is not.
    """
    from defenses.core.chain import Chain
    from defenses.core.defense import Purified
    from defenses.filters.gaussian_noise import GaussianNoise
    from defenses.purifiers.diffusion.samplers import DenoiseOnce

    if not isinstance(base, Purified):
        what = "a module of your own" if isinstance(base, Foreign) else f"a {type(base).__name__}"
        raise UserError(f"{what} does not begin with Gaussian noise; put the filter gaussian-noise in front of it")
    first = base.purifier.parts[0] if isinstance(base.purifier, Chain) else base.purifier
    if not isinstance(first, GaussianNoise | DenoiseOnce) or not isclose(first.sigma, sigma, rel_tol=1e-9):
        raise UserError(f"the defense does not begin with Gaussian noise of sigma {sigma:g}; put that filter first")


@torch.no_grad()
def _counts(base: Defense, image: Tensor, noise: Noise, draws: int, batch: int) -> Tensor:
    """How often each class is the prediction of one run, int64 [K]."""
    total: Tensor | None = None
    for begin in range(0, draws, batch):
        number = torch.arange(begin, min(begin + batch, draws), device=image.device)
        streams = Noise(noise.keys.expand(len(number), 2)).child(number)
        logits = base.logits(image.expand(len(number), *image.shape), streams, runs=1)
        if not logits.isfinite().all():
            raise UserError("the defense returned logits that are not finite under noise")
        votes = torch.bincount(logits.argmax(1), minlength=logits.shape[1])
        total = votes if total is None else total + votes
    assert total is not None
    return total
