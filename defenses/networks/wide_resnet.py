"""Wide residual networks (Zagoruyko & Komodakis 2016): the classifier of ADP, Hill's EBM and most boards."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from defenses.networks.normalise import Normalise
from defenses.utils.errors import UserError


class _Block(nn.Module):
    def __init__(self, wide: int, out: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv1 = nn.Conv2d(wide, out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(wide, out, 1, stride=stride, bias=False) if wide != out else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        h = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(active)))))
        return h + (x if self.shortcut is None else self.shortcut(active))  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Pre-activation wide residual network, depth 6n + 4.

    Args:
        depth: number of layers.
        width: widening factor.
        dropout: dropout inside the blocks (ADP's classifier: .3).
        in_channels: C.
        num_classes: K.
        mean: see `Normalise`.
        std: see `Normalise`.

    Raises:
        UserError: `depth` is not 6n + 4.
    """

    def __init__(
        self,
        *,
        depth: int = 28,
        width: int = 10,
        dropout: float = 0.0,
        in_channels: int = 3,
        num_classes: int = 10,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise UserError(f"depth is {depth}; it must be 6n + 4")
        self.normalise = Normalise(mean, std)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        stages, wide = [], 16
        for i in range(3):
            out = 16 * width * 2**i
            first = _Block(wide, out, 1 if i == 0 else 2, dropout)
            stages.append(nn.Sequential(first, *(_Block(out, out, 1, dropout) for _ in range((depth - 4) // 6 - 1))))
            wide = out
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(wide)
        self.linear = nn.Linear(wide, num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.normal_(m.weight, 0, math.sqrt(2 / (m.out_channels * m.kernel_size[0] ** 2)))

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] to logits [B, K]."""
        h = F.relu(self.bn(self.stages(self.conv1(self.normalise(x)))))
        return self.linear(h.mean((2, 3)))  # type: ignore[no-any-return]
