"""A small convolutional autoencoder (MagNet; Meng & Chen 2017): 3x3 convolutions with sigmoids."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> the same; H and W even where there is pooling.

    Args:
        in_channels: C.
        features: channels between.
        layers: convolutions before the last one; where there is pooling, also after it and after the enlargement.
        pool: whether the middle is half as high and wide, which keeps the network from copying.
    """

    def __init__(self, *, in_channels: int = 1, features: int = 3, layers: int = 2, pool: bool = False):
        super().__init__()
        body = _convolutions(in_channels, features, layers)
        if pool:
            body += [nn.AvgPool2d(2), *_convolutions(features, features, layers)]
            body += [nn.Upsample(scale_factor=2), *_convolutions(features, features, layers)]
        self.body = nn.Sequential(*body, nn.Conv2d(features, in_channels, 3, padding=1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.body(x)  # type: ignore[no-any-return]


def _convolutions(inside: int, features: int, layers: int) -> list[nn.Module]:
    wide = [inside, *[features] * layers]
    pairs = [(nn.Conv2d(a, b, 3, padding=1), nn.Sigmoid()) for a, b in itertools.pairwise(wide)]
    return [module for pair in pairs for module in pair]
