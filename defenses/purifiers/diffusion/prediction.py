"""Score, clean images and reverse steps from a network that predicts the noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.networks.sde import SDE, time


def trained_sde(network: nn.Module) -> SDE:
    """Return the SDE of a noise predictor's training."""
    return network.sde  # type: ignore[return-value]


def predicted_noise(network: nn.Module, u: Tensor, t: float) -> Tensor:
    """Return the predicted noise in u.

    Args:
        network: noise predictor, (noisy data [B, C, H, W], times [B]) -> noise, with its SDE as attribute `sde`.
        u: noisy data of the SDE [B, C, H, W].
        t: time in [0, 1].

    Returns:
        Standard normal noise [B, C, H, W].
    """
    return network(u, u.new_full((len(u),), t))  # type: ignore[no-any-return]


def score(network: nn.Module, u: Tensor, t: float) -> Tensor:
    """Return the score -noise / std at u [B, C, H, W] and time t; see `predicted_noise`."""
    return -predicted_noise(network, u, t) / trained_sde(network).std(time(t))


def denoised(network: nn.Module, u: Tensor, t: float) -> Tensor:
    """Return E[x_0 | x_t = u], [B, C, H, W], by Tweedie's formula; see `predicted_noise`."""
    sde, at = trained_sde(network), time(t)
    return (u - sde.std(at) * predicted_noise(network, u, t)) / sde.mean(at)


def reverse_step(network: nn.Module, u: Tensor, t: float, s: float, z: Tensor | None) -> Tensor:
    """Return data after one step of Euler and Maruyama of the reverse SDE.

    Args:
        network: see `predicted_noise`.
        u: noisy data [B, C, H, W] at time t.
        t: time before the step.
        s: time after the step, below t.
        z: standard normal noise [B, C, H, W]; None: no noise is added.

    Returns:
        Data [B, C, H, W] at time s.
    """
    sde, at, length = trained_sde(network), time(t), t - s
    g2 = sde.diffusion(at) ** 2
    moved = u - (sde.rate(at) * u - g2 * score(network, u, t)) * length
    return moved if z is None else moved + torch.sqrt(g2 * length) * z
