"""A defense whose noise the attacker knows."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.core.defense import Defense
from defenses.core.noise import Noise


class Fixed(Defense):
    """A randomised defense under one fixed noise, the same for every image: a deterministic one.

    Args:
        defense: not a module of somebody else's, whose draws depend on the whole batch.
        seed: of the noise.
    """

    def __init__(self, defense: Defense, seed: int):
        super().__init__()
        self.defense, self.known = defense, seed
        self.gradients = defense.gradients
        self.num_classes, self.input_shape = defense.num_classes, defense.input_shape
        self.train(False)

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        """See `Defense.logits`; the noise given is not looked at."""
        # One stream for all rows: attacks hand over subsets of a batch.
        rows = torch.zeros(len(noise), dtype=torch.int64, device=x.device)
        return self.defense.logits(x, Noise.of(self.known, rows, x.device), gradient=gradient, runs=runs)
