"""Small score networks without noise conditioning, for images of a few pixels.

As NCSNv2 they take images in [0, 1], scale them to 2x - 1 and return f, about -E[z | x] for x = clean + sigma z,
without the division by sigma, as ADP's purification needs it (Yoon et al. 2021).
"""

from __future__ import annotations

from torch import Tensor, nn


class ScoreMLP(nn.Module):
    """Linear layers with SiLU from pixels to pixels.

    Args:
        in_channels: C.
        size: H = W.
        hidden: width.
        depth: number of hidden layers.
    """

    def __init__(self, *, in_channels: int = 1, size: int = 8, hidden: int = 256, depth: int = 2):
        super().__init__()
        pixels = in_channels * size * size
        layers: list[nn.Module] = [nn.Linear(pixels, hidden), nn.SiLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(hidden, hidden), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Linear(hidden, pixels))

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] to f [B, C, H, W]."""
        return self.body((2 * x - 1).flatten(1)).view_as(x)  # type: ignore[no-any-return]


class ScoreConv(nn.Module):
    """Residual 3x3 convolutions with SiLU, with growing dilation so that every output depends on the whole image.

    Args:
        in_channels: C.
        channels: width.
        dilations: dilation of every residual convolution.
    """

    def __init__(self, *, in_channels: int = 1, channels: int = 32, dilations: tuple[int, ...] = (1, 2, 4)):
        super().__init__()
        self.begin = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in dilations)
        self.end = nn.Conv2d(channels, in_channels, 3, padding=1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] to f [B, C, H, W]."""
        h = self.begin(2 * x - 1)
        for conv in self.body:
            h = h + conv(self.act(h))
        return self.end(self.act(h))  # type: ignore[no-any-return]
