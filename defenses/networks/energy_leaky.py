"""A piecewise linear energy for small images: the twin of the smooth one, with Hill's activation."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def energy_mlp_leaky(*, in_channels: int = 1, size: int = 8, hidden: int = 256, depth: int = 2) -> nn.Sequential:
    """Return an energy of linear layers with LeakyReLU(.05): images [B, C, H, W] in [-1, 1] -> f [B].

    Args:
        in_channels: C.
        size: H = W.
        hidden: width.
        depth: number of hidden layers.
    """
    wide = [in_channels * size * size] + [hidden] * depth
    layers: list[nn.Module] = [nn.Flatten()]
    for into, out in pairwise(wide):
        layers += [nn.Linear(into, out), nn.LeakyReLU(0.05)]
    return nn.Sequential(*layers, nn.Linear(hidden, 1), nn.Flatten(0))
