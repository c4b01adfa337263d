"""Gaussian noise on the image, as in smoothed classifiers (Cohen, Rosenfeld, Kolter, ICML 2019)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from defenses.core.noise import Draw
from defenses.filters.base import Filter, within


class GaussianNoise(Filter):
    """x -> x + sigma z, z standard normal; pixels may leave [0, 1], as the certificate assumes.

    Args:
        sigma: standard deviation, in pixels of [0, 1]; 0 is the identity.

    Raises:
        UserError: `sigma` is no number from 0 to 100.
    """

    def __init__(self, *, sigma: float = 0.25):
        super().__init__()
        within("sigma", sigma, 0, 100)
        self.sigma = sigma

    def draws(self, shape: tuple[int, ...]) -> tuple[Draw, ...]:
        """Return one normal draw for every value; none if sigma is 0."""
        return (Draw(shape),) if self.sigma else ()

    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """Return images with noise."""
        return x + self.sigma * z[0] if z else x


def build(network: object, **parameters: Any) -> GaussianNoise:
    """Return `GaussianNoise`, which has no network."""
    return GaussianNoise(**parameters)
