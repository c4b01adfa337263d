"""MagNet's autoencoder (Meng & Chen 2017): 3x3 convolutions with sigmoid."""

from __future__ import annotations

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """3x3 convolutions with sigmoid from pixels to pixels.

    Args:
        in_channels: C.
        channels: width of the hidden layers.
        depth: convolutions before the last, at least 2.
        pool: halve the image after the first and double it before the last but one, as for MNIST; H and W are even.
    """

    def __init__(self, *, in_channels: int = 1, channels: int = 3, depth: int = 2, pool: bool = False):
        super().__init__()
        layers: list[nn.Module] = []
        wide = in_channels
        for i in range(depth):
            layers += [nn.Conv2d(wide, channels, 3, padding=1), nn.Sigmoid()]
            wide = channels
            if pool and i == 0:
                layers += [nn.AvgPool2d(2)]
            if pool and i == depth - 2:
                layers += [nn.Upsample(scale_factor=2)]
        self.body = nn.Sequential(*layers, nn.Conv2d(wide, in_channels, 3, padding=1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] to images of the same shape in (0, 1)."""
        return self.body(x)  # type: ignore[no-any-return]
