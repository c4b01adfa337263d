"""GradAlign (Andriushchenko & Flammarion 2020, arXiv 2007.02617): FGSM training without catastrophic overfitting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.training.adversarial.attacks import fgsm, summed_cross_entropy
from defenses.training.adversarial.base import AdversarialTraining, CommonSettings
from defenses.utils.validation import NotNegative


@dataclass(frozen=True, kw_only=True)
class GradAlignSettings(CommonSettings):
    """Settings of the regulariser.

    Args:
        lam: its weight.
    """

    lam: NotNegative = 0.2


class GradAlignTraining(AdversarialTraining):
    """CE(FGSM) + lam (1 - cos(g(x), g(x + U))), g the input gradient of the cross-entropy, U uniform in the ball.

    The regulariser is differentiated through both gradients: four forward and backward passes a step, and the second
    derivatives of two of them.
    """

    table_type: ClassVar[type[CommonSettings]] = GradAlignSettings
    settings: GradAlignSettings

    def attack(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return FGSM images, without a random start."""
        return fgsm(self.network, x, y, eps=self.settings.eps)

    def loss_at(self, x: Tensor, at: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return FGSM's loss, and the angle between the gradients at x and nearby."""
        noise = 2 * torch.rand(x.shape, generator=generator, device=x.device) - 1
        here, there = (self._gradient(point, y) for point in (x, x + self.settings.eps * noise))
        # A vanishing gradient has no angle, for which cosine_similarity gives 0: such images are left out.
        defined = (here.square().sum(1) > 0) & (there.square().sum(1) > 0)
        apart = 1 - F.cosine_similarity(here[defined], there[defined], dim=1, eps=1e-20)
        regulariser = apart.mean() if len(apart) else apart.sum()
        return F.cross_entropy(self.network(at), y) + self.settings.lam * regulariser

    def _gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the input gradient [B, pixels], differentiable in the weights."""
        x = x.detach().requires_grad_()
        return torch.autograd.grad(summed_cross_entropy(self.network, y)(x), x, create_graph=True)[0].flatten(1)
