"""Normalisation inside a network, so that every classifier takes images in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x - mean) / std per channel; the identity without mean and std. It adds no keys to the state dict.

    Args:
        mean: mean of every channel, in [0, 1] scale; None: 0.
        std: standard deviation of every channel; None: 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None):
        super().__init__()
        self.on = mean is not None or std is not None
        for name, values, default in (("mean", mean, 0.0), ("std", std, 1.0)):
            tensor = torch.tensor(list(values) if values is not None else [default], dtype=torch.float32)
            self.register_buffer(name, tensor.view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images [B, C, H, W]."""
        return (x - self.mean) / self.std if self.on else x
