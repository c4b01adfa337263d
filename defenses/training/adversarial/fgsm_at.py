"""Adversarial training with FGSM (Goodfellow et al. 2015, arXiv 1412.6572): a control that overfits to its attack.

Catastrophic overfitting (Wong et al. 2020): the accuracy under FGSM stays or rises while that under PGD falls to
zero. Validation measures both, and the last weights are shipped instead of the best, so that the collapse is kept.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.training.adversarial.attacks import fgsm
from defenses.training.adversarial.base import AdversarialTraining
from defenses.training.objective import accuracy


class FgsmTraining(AdversarialTraining):
    """1/2 CE(x) + 1/2 CE(x + eps sign): one forward and backward pass for the attack, a second on twice the images."""

    select: ClassVar[str | None] = None

    def attack(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return FGSM images, without a random start."""
        return fgsm(self.network, x, y, eps=self.settings.eps)

    def loss_at(self, x: Tensor, at: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss with equal weights of clean and attacked images."""
        return F.cross_entropy(self.network(torch.cat((x, at))), torch.cat((y, y)))

    def validate(self) -> dict[str, float]:
        """Return clean, robust (PGD) and FGSM accuracy."""
        n, network = self.full.validation_images, self.deployed
        x, y = self.data.x_validation[:n], self.data.y_validation[:n]
        return {**super().validate(), "fgsm": accuracy(network, fgsm(network, x, y, eps=self.full.eps), y)}
