"""Random resizing and padding (Xie et al., ICLR 2018)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.core.noise import Draw
from defenses.filters.base import Filter, within


class RandomResizePad(Filter):
    """The image at a random smaller size, at a random position on a black canvas of the image's size.

    The paper enlarges images of 299 pixels to between 299 and 330, on a canvas of 331, which its network takes. For
    networks of fixed size, this filter uses the same ratios within the image's size.

    Args:
        low: smallest side, as a share of the image's; all whole heights from there to the full one are equally likely.

    Raises:
        UserError: `low` outside [0.1, 1].
    """

    def __init__(self, *, low: float = 299 / 331):
        super().__init__()
        within("low", low, 0.1, 1)
        self.low = low

    def draws(self, shape: tuple[int, ...]) -> tuple[Draw, ...]:
        """Return a uniform draw for the height and the position from the top and the left."""
        return (Draw((3,), "uniform"),)

    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """Return images resized bilinearly and padded; differentiable."""
        height, width = x.shape[2:]
        # With a tolerance for rounding: 0.75 of 8 is 6.
        smallest = max(1, -int(-(self.low * height - 1e-6) // 1))
        heights = smallest + (z[0][:, 0] * (height - smallest + 1)).long()
        out = torch.zeros_like(x)
        for h in range(smallest, height + 1):
            rows = (heights == h).nonzero().squeeze(1)
            if len(rows):
                w = max(1, round(width * h / height))
                small = F.interpolate(x[rows], (h, w), mode="bilinear", align_corners=False)
                out = out.index_put((rows,), _on_canvas(small, (height, width), z[0][rows, 1:]))
        return out


def _on_canvas(small: Tensor, size: tuple[int, int], position: Tensor) -> Tensor:
    """Return images on black canvases of a size, at relative positions [B, 2] in [0, 1)."""
    b, _, h, w = small.shape
    free_y, free_x = size[0] - h, size[1] - w
    padded = F.pad(small, (free_x, free_x, free_y, free_y))
    down, right = ((position[:, i] * (free + 1)).long() for i, free in enumerate((free_y, free_x)))
    rows = (free_y - down)[:, None] + torch.arange(size[0], device=small.device)
    columns = (free_x - right)[:, None] + torch.arange(size[1], device=small.device)
    index = torch.arange(b, device=small.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def build(network: object, **parameters: Any) -> RandomResizePad:
    """Return `RandomResizePad`, which has no network."""
    return RandomResizePad(**parameters)
