"""Free adversarial training (Shafahi et al. 2019, arXiv 1904.12843)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.training.adversarial.base import AdversarialTraining, CommonSettings
from defenses.training.objective import Material
from defenses.utils.validation import Count


@dataclass(frozen=True, kw_only=True)
class FreeSettings(CommonSettings):
    """Settings of the replays.

    Args:
        replays: m, steps of the optimizer on the same batch; the perturbation moves by eps with each.
    """

    replays: Count = 8


class FreeTraining(AdversarialTraining):
    """Every batch comes m times; one backward pass moves weights and perturbation, which the next batch inherits.

    One forward and one backward pass a step, as in natural training. An epoch of the recipe has as many steps as in
    other methods, and therefore a share 1/m of the images.
    """

    table_type: ClassVar[type[CommonSettings]] = FreeSettings
    settings: FreeSettings

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed, table)
        self.replays = self.settings.replays
        self.perturbed: Tensor | None = None
        self._moving: Tensor | None = None

    def batch(self, index: Tensor, step: int) -> tuple[Tensor, Tensor, torch.Generator]:
        """Return the batch with the same augmentation in all replays."""
        return super().batch(index, step // self.replays)

    def attack(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images with the current perturbation, which is a leaf of the graph."""
        current = torch.zeros_like(x) if self.perturbed is None else self.perturbed
        self._moving = current.clone().requires_grad_()
        return (x + self._moving).clamp(0, 1)

    def loss_at(self, x: Tensor, at: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy on the perturbed images."""
        return F.cross_entropy(self.network(at), y)

    def after(self, step: int) -> None:
        """Move the perturbation by eps along the sign of the step's gradient, and project it."""
        super().after(step)
        assert self._moving is not None
        assert self._moving.grad is not None
        moved = self._moving.detach() + self.settings.eps * self._moving.grad.sign()
        self.perturbed = moved.clamp(-self.settings.eps, self.settings.eps)

    def state(self) -> dict[str, Any]:
        """Return the average and the perturbation."""
        return {**super().state(), "perturbed": self.perturbed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Objective`."""
        super().restore(state)
        self.perturbed = state["perturbed"]
