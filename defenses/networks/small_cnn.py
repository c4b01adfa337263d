"""A small convolutional classifier for 8x8 and 28x28 images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from defenses.networks.normalise import Normalise


class SmallCNN(nn.Module):
    """3x3 convolutions with ReLU, all but the first with stride 2, then two linear layers.

    Args:
        in_channels: C.
        size: H = W.
        num_classes: K.
        channels: output channels of every convolution.
        hidden: width of the linear layer before the logits.
        mean: see `Normalise`.
        std: see `Normalise`.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        size: int = 8,
        num_classes: int = 10,
        channels: Sequence[int] = (32, 64, 64),
        hidden: int = 128,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__()
        self.normalise = Normalise(mean, std)
        layers: list[nn.Module] = []
        wide = in_channels
        for i, out in enumerate(channels):
            layers += [nn.Conv2d(wide, out, 3, stride=1 if i == 0 else 2, padding=1), nn.ReLU()]
            size = size if i == 0 else (size + 1) // 2
            wide = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(wide * size * size, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] to logits [B, K]."""
        return self.head(self.features(self.normalise(x)))  # type: ignore[no-any-return]
