"""A module for batches of one size, as an exported program, behind batches of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.utils.errors import check_whole


class FixedBatch(nn.Module):
    """Give a module batches of its own size: others are split, and filled up with copies of their last image.

    Args:
        module: from images [size, C, H, W] in [0, 1] to logits [size, K], each of its own image alone.
        size: images of a batch, at least 1.

    Raises:
        UserError: `size` is no whole number, at least 1.
    """

    def __init__(self, module: nn.Module, size: int):
        super().__init__()
        check_whole(1, size=size)
        self.module, self.size = module, size
        self.training = False  # an exported program refuses eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K] of images [B, C, H, W]."""
        missing = -len(x) % self.size
        filled = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x
        return torch.cat([self.module(part) for part in filled.split(self.size)])[: len(x)]
