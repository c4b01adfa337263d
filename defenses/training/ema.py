"""Score matching with a running average of the weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from defenses.training.objective import Material, Objective

Ship = Literal["raw", "ema"]


def decay_at(decay: float, step: int) -> float:
    """Return the decay of a running average at a step (from 0)."""
    # Small at first, so that initial weights leave the average also in a short training.
    return min(decay, (1 + step) / (10 + step))


class Averaged(Objective):
    """Denoising score matching with an exponential moving average of the parameters.

    Args:
        network: the network.
        data: images.
        seed: of all randomness.
        decay: of the average.
        ship: "raw" ships the last weights, "ema" their average.
    """

    def __init__(self, network: nn.Module, data: Material, seed: int, *, decay: float, ship: Ship):
        super().__init__(network, data, seed)
        self.decay, self.ship = decay, ship
        self.average = {n: p.detach().clone() for n, p in network.named_parameters()}

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Update the average."""
        decay = decay_at(self.decay, step)
        for n, p in self.network.named_parameters():
            self.average[n].lerp_(p, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network its average as weights, within the context."""
        raw = {n: p.detach().clone() for n, p in self.network.named_parameters()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(raw)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for n, p in self.network.named_parameters():
            p.copy_(weights[n])

    @abstractmethod
    def validation_loss(self) -> float:
        """Return the loss on validation images with the current weights and the same noise every time."""

    def validate(self) -> dict[str, float]:
        """Return the losses on validation images, with the weights and with their average."""
        losses = {"dsm": self.validation_loss()}
        with self.averaged():
            losses["dsm_ema"] = self.validation_loss()
        return losses

    def state(self) -> dict[str, Tensor]:
        """Return the average."""
        return self.average

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Objective`."""
        self.average = {n: v.to(self.device) for n, v in state.items()}

    def shipped(self) -> dict[str, Tensor]:
        """Return the weights or their average."""
        if self.ship == "raw":
            return self.network.state_dict()
        return {**self.network.state_dict(), **self.average}
