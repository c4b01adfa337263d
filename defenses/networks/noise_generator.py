"""Generator of perturbations of GAN adversarial training (Wang & Yu 2019)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from defenses.utils.errors import UserError


def _normalised(conv: nn.Module, channels: int) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(channels), nn.ReLU()]


class _Block(nn.Module):
    def __init__(self, wide: int):
        super().__init__()
        conv1, conv2 = (nn.Conv2d(wide, wide, 3, padding=1, bias=False) for _ in range(2))
        self.inner = nn.Sequential(*_normalised(conv1, wide), conv2, nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inner(x))


class NoiseGenerator(nn.Module):
    """Two convolutions of stride 2, residual blocks, two transposed convolutions, tanh; batch norm between.

    Args:
        in_channels: C.
        size: H = W, a multiple of 4.
        features: channels of the first convolution (published for CIFAR-10: 64); each stride doubles them.
        blocks: residual blocks (published: 6).

    Raises:
        UserError: the size is not a multiple of 4.
    """

    def __init__(self, *, in_channels: int = 3, size: int = 32, features: int = 64, blocks: int = 6):
        super().__init__()
        if size % 4:
            raise UserError(f"images are {size} pixels wide; the generator takes multiples of 4")
        n = features
        down = [nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False) for a, b in ((n, 2 * n), (2 * n, 4 * n))]
        up = [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in ((4 * n, 2 * n), (2 * n, n))]
        self.layers = nn.Sequential(
            *_normalised(nn.Conv2d(in_channels, n, 3, padding=1, bias=False), n),
            *_normalised(down[0], 2 * n),
            *_normalised(down[1], 4 * n),
            *(_Block(4 * n) for _ in range(blocks)),
            *_normalised(up[0], 2 * n),
            *_normalised(up[1], n),
            nn.Conv2d(n, in_channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [-1, 1] to noise of the same shape in [-1, 1]."""
        return self.layers(x)  # type: ignore[no-any-return]
