"""The CIFAR residual networks of He et al. 2016, with parameter-free shortcuts (option A)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from defenses.networks.normalise import Normalise


class _Block(nn.Module):
    def __init__(self, wide: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(wide, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.stride, self.pad = stride, (out - wide) // 2

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        # Option A: every second pixel, and zero channels, half on each side.
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.pad:
            x = F.pad(x, (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(h + x)


class CifarResNet(nn.Module):
    """conv3x3-16, three stages of basic blocks with 16, 32 and 64 channels, global average pooling, linear.

    Source: He et al. 2016, section 4.2, depth 6n + 2.

    Args:
        blocks: n, blocks a stage (3 gives 20 layers, 9 gives 56, 18 gives 110).
        in_channels: C.
        num_classes: K.
        mean: see `Normalise`.
        std: see `Normalise`.
    """

    def __init__(
        self,
        *,
        blocks: int,
        in_channels: int = 3,
        num_classes: int = 10,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(wide: int, out: int, blocks: int, stride: int) -> nn.Sequential:
        return nn.Sequential(_Block(wide, out, stride), *(_Block(out, out, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] to logits [B, K]."""
        h = F.relu(self.bn1(self.conv1(self.normalise(x))))
        h = self.layer3(self.layer2(self.layer1(h)))
        return self.linear(h.mean((2, 3)))  # type: ignore[no-any-return]


resnet20 = partial(CifarResNet, blocks=3)
resnet56 = partial(CifarResNet, blocks=9)
resnet110 = partial(CifarResNet, blocks=18)
