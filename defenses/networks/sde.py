"""SDEs of score-based generative modelling (Song et al. 2021, arXiv 2011.13456, appendix B and C).

Each is linear, dx = a(t) x dt + g(t) dw on t in [0, 1], so that x_t = m(t) x_0 + std(t) z with z standard normal. Times
are tensors of any shape; methods return tensors of the same shape.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.utils.errors import UserError, unknown

START = 1e-5  # the time of the data, as in the paper: scores diverge towards 0


class SDE(ABC):
    """A linear SDE from data at time 0 to noise at time 1.

    Attributes:
        centred: True if its data lie in [-1, 1], False if in [0, 1].
    """

    centred: bool = True

    @abstractmethod
    def mean(self, t: Tensor) -> Tensor:
        """Return the factor m(t) of the image in x_t."""

    @abstractmethod
    def std(self, t: Tensor) -> Tensor:
        """Return the standard deviation of the noise in x_t."""

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """Return the rate a(t) of the drift a(t) x."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """Return the diffusion coefficient g(t)."""

    @property
    @abstractmethod
    def prior_std(self) -> float:
        """Return the standard deviation of the normal prior, with mean 0, at time 1."""

    def corrector(self, t: Tensor) -> Tensor:
        """Return alpha of the corrector's step size (Song et al. 2021, algorithms 4 and 5), for steps of 1/1000."""
        return torch.ones_like(t)

    def level(self, t: Tensor) -> Tensor:
        """Return the noise level std / m in pixels of [0, 1]: x_t is m(t) times an image with such noise."""
        return self.std(t) / self.mean(t) / (2 if self.centred else 1)

    def time_of(self, sigma: float) -> float:
        """Return the time of a noise level.

        Args:
            sigma: standard deviation, in pixels of [0, 1].

        Returns:
            t with level(t) = sigma, by bisection: the level grows with t.

        Raises:
            UserError: the SDE has no such level.
        """
        low, high = START, 1.0
        least, most = (float(self.level(time(t))) for t in (low, high))
        if not least < sigma <= most:
            raise UserError(f"sigma is {sigma:g}; this SDE has noise above {least:.2g} and at most {most:.2g}")
        for _ in range(64):  # to the last bit
            middle = (low + high) / 2
            low, high = (low, middle) if float(self.level(time(middle))) >= sigma else (middle, high)
        return high

    def encode(self, x: Tensor) -> Tensor:
        """Scale images in [0, 1] to this SDE's data."""
        return 2 * x - 1 if self.centred else x

    def decode(self, u: Tensor) -> Tensor:
        """Scale data back to [0, 1], without a clamp."""
        return (u + 1) / 2 if self.centred else u


@dataclass(frozen=True)
class VE(SDE):
    """Variance exploding: x_0 + sigma(t) z, data in [0, 1].

    Args:
        sigma_min: noise at time 0.
        sigma_max: noise at time 1.

    Raises:
        UserError: not 0 < sigma_min < sigma_max.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    centred = False

    def __post_init__(self) -> None:
        """Refuse noise levels that do not increase."""
        if not 0 < self.sigma_min < self.sigma_max:
            raise UserError(f"sigma_min is {self.sigma_min} and sigma_max {self.sigma_max}; give 0 < min < max")

    def mean(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def std(self, t: Tensor) -> Tensor:
        """Return sigma_min (sigma_max / sigma_min)^t."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def rate(self, t: Tensor) -> Tensor:
        """Return 0."""
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """Return sigma(t) sqrt(2 ln(sigma_max / sigma_min))."""
        return self.std(t) * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))

    @property
    def prior_std(self) -> float:
        """Return sigma_max."""
        return self.sigma_max


@dataclass(frozen=True)
class VP(SDE):
    """Variance preserving: the limit of DDPM with beta(t) linear in t, data in [-1, 1].

    Args:
        beta_min: beta(0).
        beta_max: beta(1).

    Raises:
        UserError: not 0 < beta_min <= beta_max.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        """Refuse rates that are not positive or decrease."""
        if not 0 < self.beta_min <= self.beta_max:
            raise UserError(f"beta_min is {self.beta_min} and beta_max {self.beta_max}; give 0 < min <= max")

    def beta(self, t: Tensor) -> Tensor:
        """Return the noise rate of DDPM at t."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def integral(self, t: Tensor) -> Tensor:
        """Return the integral of beta from 0 to t."""
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def mean(self, t: Tensor) -> Tensor:
        """Return exp(-1/2 int beta)."""
        return torch.exp(-self.integral(t) / 2)

    def std(self, t: Tensor) -> Tensor:
        """Return sqrt(1 - m^2)."""
        return torch.sqrt(-torch.expm1(-self.integral(t)))

    def rate(self, t: Tensor) -> Tensor:
        """Return -beta / 2."""
        return -self.beta(t) / 2

    def diffusion(self, t: Tensor) -> Tensor:
        """Return sqrt(beta)."""
        return torch.sqrt(self.beta(t))

    @property
    def prior_std(self) -> float:
        """Return 1."""
        return 1.0

    def corrector(self, t: Tensor) -> Tensor:
        """Return 1 - beta_i of DDPM's thousand steps."""
        return 1 - self.beta(t) / 1000


@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP: the mean of VP with less noise, std = 1 - m^2."""

    def std(self, t: Tensor) -> Tensor:
        """Return 1 - m^2."""
        return -torch.expm1(-self.integral(t))

    def diffusion(self, t: Tensor) -> Tensor:
        """Return sqrt(beta (1 - exp(-2 int beta)))."""
        return torch.sqrt(-self.beta(t) * torch.expm1(-2 * self.integral(t)))


_SDES: dict[str, type[SDE]] = {"ve": VE, "vp": VP, "subvp": SubVP}


def sde_of(name: str) -> SDE:
    """Return an SDE with the published parameters.

    Args:
        name: "ve", "vp" or "subvp".

    Raises:
        UserError: unknown name.
    """
    if name not in _SDES:
        raise unknown("sde", name, _SDES)
    return _SDES[name]()


def time(t: float) -> Tensor:
    """Return a time as a float64 scalar tensor, for arithmetic with images of any dtype and device."""
    return torch.tensor(t, dtype=torch.float64)
