"""MART, misclassification-aware adversarial training (Wang et al., ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.training.adversarial.attacks import pgd
from defenses.training.adversarial.base import AdversarialTraining, AttackSettings, CommonSettings
from defenses.training.adversarial.trades import divergence
from defenses.utils.validation import NotNegative


@dataclass(frozen=True, kw_only=True)
class MartSettings(AttackSettings):
    """Settings of the second term.

    Args:
        beta: lambda of the paper.
    """

    beta: NotNegative = 5.0


def mart_loss(clean: Tensor, attacked: Tensor, y: Tensor, beta: float) -> Tensor:
    """Return boosted cross-entropy on p' and the divergence weighted by 1 - p_y.

    CE(p', y) - log(1.0001 - max_{k != y} p'_k) + beta KL(p || p') (1 - p_y), averaged over images.

    Args:
        clean: logits of clean images [B, K].
        attacked: logits of attacked images [B, K].
        y: labels [B].
        beta: weight of the divergence.
    """
    log_p, log_at = clean.log_softmax(1), attacked.log_softmax(1)
    others = log_at.exp().scatter(1, y[:, None], -1.0).amax(1)
    boosted = F.nll_loss(log_at, y, reduction="none") - (1.0001 - others).log()
    doubt = 1 - log_p.gather(1, y[:, None])[:, 0].exp()
    return (boosted + beta * divergence(log_at, log_p) * doubt).mean()


class MartTraining(AdversarialTraining):
    """`mart_loss` on images that maximise the cross-entropy of the network in evaluation mode.

    The attack starts uniformly in the ball, as PGD-AT's does.
    """

    table_type: ClassVar[type[CommonSettings]] = MartSettings
    attack_in_eval: ClassVar[bool] = True
    settings: MartSettings

    def attack(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return images of PGD on the cross-entropy."""
        s = self.settings
        return pgd(self.network, x, y, generator, eps=s.eps, step=s.step, iterations=s.iterations)

    def loss_at(self, x: Tensor, at: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """See `mart_loss`."""
        return mart_loss(self.network(x), self.network(at), y, self.settings.beta)
