"""Persistent chains, some restarted from uniform noise, and the methods that train with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from defenses.training.objective import Material, Objective
from defenses.training.streams import stream


class Bank:
    """A bank of chains.

    Args:
        shape: [number of chains, C, H, W].
        low: least value of a fresh pixel.
        high: largest value.
        seed: seed of the first chains.
        device: of the chains.
    """

    def __init__(self, shape: tuple[int, ...], low: float, high: float, seed: int, device: torch.device):
        self.low, self.high = low, high
        self.chains = self._fresh(shape, stream(seed, "bank", 0, device))

    def _fresh(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return self.low + (self.high - self.low) * torch.rand(shape, generator=generator, device=generator.device)

    def taken(self, rows: int, rejuvenate: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return (numbers, states) of `rows` random chains, of which a share restarts."""
        at = torch.randperm(len(self.chains), generator=generator, device=generator.device)[:rows]
        x = self.chains[at]
        anew = torch.rand(len(x), generator=generator, device=generator.device) < rejuvenate
        return at, torch.where(anew.view(-1, 1, 1, 1), self._fresh(tuple(x.shape), generator), x)

    def put(self, at: Tensor, x: Tensor) -> None:
        """Store the states of some chains."""
        self.chains[at] = x


class BankTraining(Objective):
    """A method whose checkpoints hold a bank of chains.

    Args:
        network: the network.
        data: images.
        seed: of all randomness.
        bank: the chains.
    """

    def __init__(self, network: nn.Module, data: Material, seed: int, bank: Bank):
        super().__init__(network, data, seed)
        self.bank = bank
        self._difference = torch.zeros((), device=self.device)

    def state(self) -> dict[str, Any]:
        """Return the bank."""
        return {"bank": self.bank.chains}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Objective`."""
        self.bank.chains = state["bank"].to(self.device)

    def monitor(self) -> dict[str, float]:
        """Return the difference between data and chains in the last step (far from 0 is divergence)."""
        return {"d": float(self._difference)}
