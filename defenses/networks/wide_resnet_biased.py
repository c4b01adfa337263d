"""Wide residual network of Hill's EBM defense, ADP and JEM, with the parameter names of their checkpoints.

Unlike in `wide_resnet`, convolutions have biases, the second of a block has the stride, and shortcuts take a block's
input without activation. ebm-defense and JEM use images in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from defenses.networks.normalise import Normalise
from defenses.utils.errors import UserError


class _Block(nn.Module):
    def __init__(self, wide: int, out: int, stride: int, norm: bool, slope: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(wide) if norm else nn.Identity()
        self.conv1 = nn.Conv2d(wide, out, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(out, out, 3, stride=stride, padding=1)
        shortcut = [nn.Conv2d(wide, out, 1, stride=stride)] if stride != 1 or wide != out else []
        self.shortcut = nn.Sequential(*shortcut)
        self.act = nn.LeakyReLU(slope) if slope else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.act(self.bn2(self.conv1(self.act(self.bn1(x))))))
        return h + self.shortcut(x)  # type: ignore[no-any-return]


class BiasedWideResNet(nn.Module):
    """Pre-activation wide residual network with biases, depth 6n + 4.

    Args:
        depth: number of layers.
        width: widening factor.
        in_channels: C.
        num_classes: K.
        norm: batch norm; JEM has none.
        slope: of LeakyReLU; 0 is ReLU. JEM: .2.
        mean: see `Normalise`; .5 with std .5 gives [-1, 1].
        std: see `Normalise`.

    Raises:
        UserError: `depth` is not 6n + 4.
    """

    def __init__(
        self,
        *,
        depth: int = 28,
        width: int = 10,
        in_channels: int = 3,
        num_classes: int = 10,
        norm: bool = True,
        slope: float = 0.0,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
    ):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise UserError(f"depth is {depth}; it must be 6n + 4")
        self.normalise = Normalise(mean, std)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1)
        stages, wide = [], 16
        for i in range(3):
            out = 16 * width * 2**i
            first = _Block(wide, out, 1 if i == 0 else 2, norm, slope)
            stages.append(
                nn.Sequential(first, *(_Block(out, out, 1, norm, slope) for _ in range((depth - 4) // 6 - 1)))
            )
            wide = out
        self.layer1, self.layer2, self.layer3 = stages
        self.bn1 = nn.BatchNorm2d(wide) if norm else nn.Identity()
        self.act = nn.LeakyReLU(slope) if slope else nn.ReLU()
        self.linear = nn.Linear(wide, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] to logits [B, K]."""
        h = self.layer3(self.layer2(self.layer1(self.conv1(self.normalise(x)))))
        return self.linear(self.act(self.bn1(h)).mean((2, 3)))  # type: ignore[no-any-return]
