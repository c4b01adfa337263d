"""Randomised defense under noise known to the attacker."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.core.defense import Defense
from defenses.core.noise import Noise


class Fixed(Defense):
    """A randomised defense made deterministic by fixed noise, the same for every image.

    Args:
        defense: not a `UserModule` one, whose draws depend on the whole batch.
        seed: of the noise.
    """

    def __init__(self, defense: Defense, seed: int):
        super().__init__()
        self.defense, self.noise_seed = defense, seed
        self.gradients = defense.gradients
        self.num_classes, self.input_shape = defense.num_classes, defense.input_shape
        self.train(False)

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        """Return logits as `Defense.logits`, under the fixed noise."""
        # one stream for all rows, since attacks pass subsets of a batch
        rows = torch.zeros(len(noise), dtype=torch.int64, device=x.device)
        return self.defense.logits(x, Noise.of(self.noise_seed, rows, x.device), gradient=gradient, runs=runs)
