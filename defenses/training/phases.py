"""Phases of a training: stretches of steps with one optimizer each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from defenses.training.objective import Objective
from defenses.training.schedules import Schedule, learning_rates
from defenses.utils.validation import Count, NotNegative, PartShare


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimizer and learning rate.

    Args:
        until: step at which it ends.
        optimizer: "adam" or "sgd"; a phase with the optimizer of the one before keeps its moments.
        lr: learning rate at its start.
        lr_end: learning rate at its end, reached linearly; None: constant.
        momentum: of SGD.
        weight_decay: L2 penalty.
        schedule: "linear" (or constant, without lr_end), "cosine" or "cyclic", see `learning_rates`; for these two
            lr_end is 0 unless given. Rates that fall at certain steps are phases.
    """

    until: Count
    optimizer: Literal["adam", "sgd"]
    lr: NotNegative
    lr_end: NotNegative | None = None
    momentum: PartShare = 0.0
    weight_decay: NotNegative = 0.0
    schedule: Schedule = "linear"

    def described(self) -> dict[str, object]:
        """Return the phase as a recipe's fingerprint has it: `schedule` only where it is not the default."""
        return {n: v for n, v in vars(self).items() if n != "schedule" or v != "linear"}


def optimizer_of(objective: Objective, phase: Phase) -> torch.optim.Optimizer:
    """Return a new optimizer of an objective's network for a phase."""
    parameters = objective.network.parameters()
    if phase.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=phase.lr, betas=objective.betas, weight_decay=phase.weight_decay)
    return torch.optim.SGD(parameters, lr=phase.lr, momentum=phase.momentum, weight_decay=phase.weight_decay)


class PhasedOptimizer:
    """The optimizer over all steps of a training.

    Args:
        objective: the method with its network.
        phases: in order, see `Phase`.

    Attributes:
        optimizer: of the last call of `at`.
        kind: "adam" or "sgd".
    """

    def __init__(self, objective: Objective, phases: tuple[Phase, ...]):
        self.objective, self.phases = objective, phases
        self.optimizer = optimizer_of(objective, phases[0])
        self.kind = phases[0].optimizer
        self._rates: dict[int, list[float]] = {}

    def phase_at(self, step: int) -> int:
        """Return the number of the phase of a step; beyond the end, the last."""
        return next((i for i, p in enumerate(self.phases) if step < p.until), len(self.phases) - 1)

    def at(self, step: int) -> torch.optim.Optimizer:
        """Return the optimizer, set to a step's learning rate, decay and momentum; a new one where its kind changes."""
        i = self.phase_at(step)
        phase = self.phases[i]
        if phase.optimizer != self.kind:
            self.optimizer, self.kind = optimizer_of(self.objective, phase), phase.optimizer
        lr = self._rate(i, step)
        for group in self.optimizer.param_groups:
            group.update(lr=lr, weight_decay=phase.weight_decay)
            if phase.optimizer == "sgd":
                group["momentum"] = phase.momentum
        return self.optimizer

    def _rate(self, i: int, step: int) -> float:
        phase, begin = self.phases[i], self.phases[i - 1].until if i else 0
        length = phase.until - begin
        if phase.schedule != "linear":
            if i not in self._rates:
                self._rates[i] = learning_rates(phase.schedule, phase.lr, phase.lr_end or 0.0, length)
            return self._rates[i][step - begin]
        return phase.lr if phase.lr_end is None else phase.lr + (phase.lr_end - phase.lr) * (step - begin) / length
