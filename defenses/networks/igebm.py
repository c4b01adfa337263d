"""Energies with spectral norm (Du & Mordatch 2019, arXiv 1903.08689): images in [0, 1] -> f [B]."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def igebm_mlp(*, in_channels: int = 1, size: int = 8, hidden: int = 256, depth: int = 2) -> nn.Sequential:
    """Return an energy for images of a few pixels: linear layers with SiLU; all but the last have spectral norm 1.

    Args:
        in_channels: C.
        size: H = W.
        hidden: width.
        depth: number of hidden layers.
    """
    wide = in_channels * size * size
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [spectral_norm(nn.Linear(wide, hidden)), nn.SiLU()]
        wide = hidden
    return nn.Sequential(*layers, nn.Linear(wide, 1), nn.Flatten(0))


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; `down` halves the image."""

    def __init__(self, wide: int, out: int, down: bool):
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(wide, out, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(out, out, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(wide, out, 1)) if wide != out else nn.Identity()
        self.act = nn.LeakyReLU(0.2)
        self.pool = nn.AvgPool2d(2) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.conv2(self.act(self.conv1(x))) + self.shortcut(x))
        return self.pool(h)  # type: ignore[no-any-return]


def igebm_resnet(*, in_channels: int = 3, width: int = 128) -> nn.Sequential:
    """Return six residual blocks of width and twice the width, summed over positions, with spectral norm alone.

    Args:
        in_channels: C.
        width: channels of the first blocks.
    """
    shapes = [(1, 1, True), (1, 1, False), (1, 2, True), (2, 2, False), (2, 2, True), (2, 2, False)]
    blocks = [_Block(a * width, b * width, down) for a, b, down in shapes]
    first = spectral_norm(nn.Conv2d(in_channels, width, 3, padding=1))
    return nn.Sequential(first, nn.LeakyReLU(0.2), *blocks, _Sum(), nn.Linear(2 * width, 1), nn.Flatten(0))


class _Sum(nn.Module):
    """Sum over positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().sum((2, 3))
