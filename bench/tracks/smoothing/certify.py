"""Certify radii of smoothed classifiers (Cohen, Rosenfeld, Kolter, ICML 2019, arXiv 1902.02918)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose
from statistics import NormalDist

import torch
from torch import Tensor

from bench.stats.proportions import clopper_pearson_lower
from defenses.core.chain import Chain
from defenses.core.defense import Defense, Purified, UserModule
from defenses.core.noise import Noise
from defenses.filters.gaussian_noise import GaussianNoise
from defenses.purifiers.diffusion.samplers import DenoiseOnce
from defenses.utils.errors import UserError, check_whole
from defenses.utils.precision import multiplied_in

_SMOOTH, _CHOICE, _ESTIMATE = 0x534D4F4F, 0, 1  # names of noise streams
ABSTAIN = -1


@dataclass(frozen=True)
class CertificationProtocol:
    """Parameters of a certification.

    Args:
        sigma: standard deviation of the Gaussian noise, in pixels of [0, 1].
        n0: draws that choose the class.
        n: draws that estimate its probability.
        alpha: largest chance that a certificate is wrong.

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
        check_whole(1, n0=self.n0, n=self.n)
        if not 0 < self.alpha < 1:
            raise UserError(f"alpha is {self.alpha}; it must lie between 0 and 1")

    @property
    def largest(self) -> float:
        """Radius that is certified where all n draws agree, the largest possible one."""
        return self.sigma * NormalDist().inv_cdf(self.alpha ** (1 / self.n)) if self.alpha ** (1 / self.n) > 0.5 else 0


@dataclass(frozen=True)
class Radius:
    """Certificate of one image.

    Args:
        prediction: the class; `ABSTAIN` where none is certified.
        radius: L2 distance within which the smoothed prediction is that class with confidence 1 - alpha; 0 where it
            abstains.
        chosen: the class that n0 draws chose.
        count: number of n further draws that gave it.
        low: Clopper and Pearson's lower bound of its probability, at level alpha.
    """

    prediction: int
    radius: float
    chosen: int
    count: int
    low: float


def radius_of(chosen: int, count: int, protocol: CertificationProtocol) -> Radius:
    """Return the certificate that counts give; an abstention where the lower bound is not above one half.

    The radius is sigma times the normal quantile of Clopper and Pearson's lower bound of the class's probability.

    Args:
        chosen: a class chosen without the draws that are counted.
        count: number of the protocol's n draws that gave it.
        protocol: sigma, draws and confidence.
    """
    low = float(clopper_pearson_lower(count, protocol.n, protocol.alpha))
    if low <= 0.5:
        return Radius(ABSTAIN, 0.0, chosen, count, low)
    return Radius(chosen, protocol.sigma * NormalDist().inv_cdf(low), chosen, count, low)


def certified(
    base: Defense, x: Tensor, indices: Tensor, protocol: CertificationProtocol, *, seed: int = 0, batch: int = 1000
) -> Iterator[Radius]:
    """Certify images one after another.

    Draw d of image i has noise keyed by (seed, i, d): counts depend neither on the batch nor on the other images, but
    for logits that tie to rounding.

    Args:
        base: a defense whose purifier starts with the filter `gaussian-noise` of the protocol's sigma, or with
            `denoise-once`, which adds that noise: one run is f(x + N(0, sigma^2)), with any f, random or not. Runs are
            not combined.
        x: images, float32 [N, C, H, W] in [0, 1], on the device of `base`.
        indices: positions of the images in the data set, int64 [N].
        protocol: sigma, draws and confidence.
        seed: of the noise.
        batch: draws at once.

    Yields:
        The certificate of each image, in order.

    Raises:
        UserError: `base` is not of that form, or returns logits that are not finite.
    """
    check_form(base, protocol.sigma)
    for image, index in zip(x, indices, strict=True):
        stream = Noise.of(seed, index.view(1), x.device).child(_SMOOTH)
        chosen = int(_counts(base, image, stream.child(_CHOICE), protocol.n0, batch).argmax())
        counts = _counts(base, image, stream.child(_ESTIMATE), protocol.n, batch)
        yield radius_of(chosen, int(counts[chosen]), protocol)


def check_form(base: Defense, sigma: float) -> None:
    """Refuse a defense whose runs are not a function of x + N(0, sigma^2).

    Args:
        base: the defense.
        sigma: standard deviation of the noise, in pixels of [0, 1].

    Raises:
        UserError: it does not begin with that noise.
    """
    if not isinstance(base, Purified):
        kind = "a module of your own" if isinstance(base, UserModule) else f"a {type(base).__name__}"
        raise UserError(f"{kind} does not begin with Gaussian noise; put the filter gaussian-noise in front of it")
    first = base.purifier.parts[0] if isinstance(base.purifier, Chain) else base.purifier
    if not isinstance(first, GaussianNoise | DenoiseOnce) or not isclose(first.sigma, sigma, rel_tol=1e-9):
        raise UserError(f"the defense does not begin with Gaussian noise of sigma {sigma:g}; put that filter first")


@torch.no_grad()
@multiplied_in("float32")
def _counts(base: Defense, image: Tensor, noise: Noise, draws: int, batch: int) -> Tensor:
    """Return the number of draws in which each class is predicted, int64 [K]."""
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
