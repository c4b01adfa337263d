"""Length and intervals of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from defenses.training.phases import Phase


@dataclass(frozen=True)
class Plan:
    """Length, optimizers and intervals of a training.

    Args:
        batch: images a step.
        phases: optimizers, in order; training ends with the last.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        seed: seed of the data order.
        fingerprint: of the recipe; checkpoints of others are refused.
        time_limit: seconds, over all resumptions, after which training ends before its last step.
    """

    batch: int
    phases: tuple[Phase, ...]
    validate_every: int
    checkpoint_every: int
    seed: int
    fingerprint: str
    time_limit: float = math.inf

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return self.phases[-1].until
