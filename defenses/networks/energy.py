"""Energies for Langevin purifiers (Hill et al. 2021): plain chains of layers, images in [-1, 1] -> f [B].

`f` is the raw output; the energy of the model is U(x) = f(x) / T with the temperature T = eps^2 / 2 of training.
"""

from __future__ import annotations

from torch import nn

from defenses.utils.errors import UserError


def energy_conv(*, in_channels: int = 3, size: int = 32, features: int = 32) -> nn.Sequential:
    """Return Hill's energy: five convolutions with LeakyReLU(.05), no normalisation (693,569 parameters at 32x32x3).

    Args:
        in_channels: C.
        size: H = W, at least 8; the last kernel covers the map after three strided convolutions.
        features: n_f, channels of the first layer.

    Raises:
        UserError: `size` is below 8.
    """
    if size < 8:
        raise UserError(f"size is {size}; it must be at least 8")
    last = size // 2 // 2 // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, features, 3, padding=1),
        nn.LeakyReLU(0.05),
        nn.Conv2d(features, features * 2, 4, stride=2, padding=1),
        nn.LeakyReLU(0.05),
        nn.Conv2d(features * 2, features * 4, 4, stride=2, padding=1),
        nn.LeakyReLU(0.05),
        nn.Conv2d(features * 4, features * 8, 4, stride=2, padding=1),
        nn.LeakyReLU(0.05),
        nn.Conv2d(features * 8, 1, last),
        nn.Flatten(0),
    )


def energy_mlp(*, in_channels: int = 1, size: int = 8, hidden: int = 256, depth: int = 2) -> nn.Sequential:
    """Return a smooth energy for images of a few pixels: linear layers with SiLU.

    Args:
        in_channels: C.
        size: H = W.
        hidden: width.
        depth: number of hidden layers.
    """
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(in_channels * size * size, hidden), nn.SiLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(hidden, hidden), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, 1), nn.Flatten(0))
