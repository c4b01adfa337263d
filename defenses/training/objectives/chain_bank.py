"""A persistent bank of chains, some of which start anew from uniform noise every time."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.training.streams import stream


class Bank:
    """The chains.

    Args:
        shape: [number of chains, C, H, W].
        low: least value of a fresh pixel.
        high: largest value.
        seed: seed of the first chains.
        device: where they are.
    """

    def __init__(self, shape: tuple[int, ...], low: float, high: float, seed: int, device: torch.device):
        self.low, self.high = low, high
        self.chains = self._fresh(shape, stream(seed, "bank", 0, device))

    def _fresh(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return self.low + (self.high - self.low) * torch.rand(shape, generator=generator, device=generator.device)

    def taken(self, rows: int, rejuvenate: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(numbers, states) of `rows` chains, of which a share starts anew."""
        at = torch.randperm(len(self.chains), generator=generator, device=generator.device)[:rows]
        x = self.chains[at]
        anew = torch.rand(len(x), generator=generator, device=generator.device) < rejuvenate
        return at, torch.where(anew.view(-1, 1, 1, 1), self._fresh(tuple(x.shape), generator), x)

    def put(self, at: Tensor, x: Tensor) -> None:
        """Keep the states of some chains."""
        self.chains[at] = x
