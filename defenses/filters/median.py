"""Median smoothing, the second squeezer of Xu, Evans and Qi (NDSS 2018)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from defenses.filters.base import Filter, within


class Median(Filter):
    """The median of a window around each pixel, per channel; the upper median of an even number of values.

    The edge is replicated. For windows up to 3 the values are those of scipy's `median_filter` in its mode "reflect",
    which the paper's release uses; an even window reaches further to the top and the left. The gradient goes to the
    median pixel, which is exact if no two values of a window are equal.

    Args:
        window: side of the window, 2 to 9.

    Raises:
        UserError: `window` is no whole number from 2 to 9.
    """

    def __init__(self, *, window: int = 2):
        super().__init__()
        within("window", window, 2, 9, whole=True)
        self.window = window

    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """Return smoothed images."""
        w, (b, c, height, width) = self.window, x.shape
        before, after = w // 2, (w - 1) // 2
        padded = F.pad(x, (before, after, before, after), mode="replicate")
        windows = padded.unfold(2, w, 1).unfold(3, w, 1).reshape(b, c, height, width, w * w)
        return windows.kthvalue(w * w // 2 + 1).values


def build(network: object, **parameters: Any) -> Median:
    """Return `Median`, which has no network."""
    return Median(**parameters)
