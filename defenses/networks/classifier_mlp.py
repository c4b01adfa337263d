"""A smooth classifier for images of a few pixels: its log-sum-exp is an energy with a varying gradient (JEM)."""

from __future__ import annotations

from torch import nn

from defenses.networks.normalise import Normalise


def classifier_mlp(
    *, in_channels: int = 1, size: int = 8, num_classes: int = 10, hidden: int = 256, depth: int = 2
) -> nn.Sequential:
    """Return linear layers with SiLU, images [B, C, H, W] in [0, 1] -> logits [B, K].

    Args:
        in_channels: C.
        size: H = W.
        num_classes: K.
        hidden: width.
        depth: number of hidden layers.
    """
    wide = in_channels * size * size
    layers: list[nn.Module] = [Normalise([0.5], [0.5]), nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(wide, hidden), nn.SiLU()]
        wide = hidden
    return nn.Sequential(*layers, nn.Linear(wide, num_classes))
