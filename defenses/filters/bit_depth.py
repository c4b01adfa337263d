"""Reduction of the bits per pixel, the first squeezer of Xu, Evans and Qi (NDSS 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from defenses.filters.base import Filter, within


class BitDepth(Filter):
    """x -> round(x (2^b - 1)) / (2^b - 1), halves rounded to even.

    Args:
        bits: b, 1 to 8.

    Raises:
        UserError: `bits` is no whole number from 1 to 8.
    """

    differentiable = False

    def __init__(self, *, bits: int = 5):
        super().__init__()
        within("bits", bits, 1, 8, whole=True)
        self.bits = bits

    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """Return rounded images."""
        top = (1 << self.bits) - 1
        return torch.round(x * top) / top


def build(network: object, **parameters: Any) -> BitDepth:
    """Return `BitDepth`, which has no network."""
    return BitDepth(**parameters)
