"""Adversarial training with PGD (Madry et al. 2018, arXiv 1706.06083), with the checkpoint of Rice et al. 2020.

With one step it is Fast AT (Wong et al. 2020, arXiv 2001.03994): uniform start, one step beyond eps, projection.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.training.adversarial.attacks import pgd
from defenses.training.adversarial.base import AdversarialTraining, AttackSettings, CommonSettings


class PgdTraining(AdversarialTraining):
    """Cross-entropy on PGD's images: `iterations` + 1 forward and backward passes a step."""

    table_type: ClassVar[type[CommonSettings]] = AttackSettings
    settings: AttackSettings

    def attack(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return images of PGD on the cross-entropy."""
        s = self.settings
        return pgd(self.network, x, y, generator, eps=s.eps, step=s.step, iterations=s.iterations)

    def loss_at(self, x: Tensor, at: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy on the attacked images alone."""
        return F.cross_entropy(self.network(at), y)
