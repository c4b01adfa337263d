"""Gaussian noise on the image: the first part of every smoothed classifier (Cohen, Rosenfeld, Kolter, ICML 2019)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from defenses.core.noise import Draw
from defenses.filters.base import Filter, within


class GaussianNoise(Filter):
    """x -> x + sigma z, z standard normal; pixels may leave [0, 1], as the certificate supposes.

    Args:
        sigma: standard deviation, in pixels of [0, 1]; 0 leaves the image as it is.

    Raises:
        UserError: `sigma` is no number from 0 to 100.
    """

    def __init__(self, *, sigma: float = 0.25):
        super().__init__()
        within("sigma", sigma, 0, 100)
        self.sigma = sigma

    def draws(self, shape: tuple[int, ...]) -> tuple[Draw, ...]:
        """One number a value; none where sigma is 0."""
        return (Draw(shape),) if self.sigma else ()

    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """With noise."""
        return x + self.sigma * z[0] if z else x


def build(network: object, **own: Any) -> GaussianNoise:  # noqa: ARG001
    """See `GaussianNoise`; it has no network."""
    return GaussianNoise(**own)
