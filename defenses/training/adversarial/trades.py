"""TRADES (Zhang et al. 2019, arXiv 1901.08573)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.training.adversarial.attacks import ascend
from defenses.training.adversarial.base import AdversarialTraining, AttackSettings, CommonSettings
from defenses.utils.validation import NotNegative


@dataclass(frozen=True, kw_only=True)
class TradesSettings(AttackSettings):
    """Settings of the second term.

    Args:
        beta: 1 / lambda of the paper.
    """

    beta: NotNegative = 6.0


def divergence(log_at: Tensor, log_p: Tensor) -> Tensor:
    """Return KL(p || p') of every image [B].

    Args:
        log_at: log p' [B, K].
        log_p: log p [B, K]; of p itself the gradient is NaN where p is 0.
    """
    return F.kl_div(log_at, log_p, reduction="none", log_target=True).sum(1)


class TradesTraining(AdversarialTraining):
    """CE(x) + beta KL(p(x) || p(x')), x' the image of largest KL in the ball, from a start at x + .001 N.

    The attack sees the network in evaluation mode: `iterations` + 1 forward and `iterations` backward passes. The
    gradient of the loss goes through both x and x'.
    """

    table_type: ClassVar[type[CommonSettings]] = TradesSettings
    attack_in_eval: ClassVar[bool] = True
    settings: TradesSettings

    def attack(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return images of PGD on the divergence."""
        s = self.settings
        with torch.no_grad():
            log_p = self.network(x).log_softmax(1)
        noise = torch.randn(x.shape, generator=generator, device=x.device)

        def loss(at: Tensor) -> Tensor:
            return divergence(self.network(at).log_softmax(1), log_p).sum()

        return ascend(loss, x + 0.001 * noise, x, eps=s.eps, step=s.step, iterations=s.iterations)

    def loss_at(self, x: Tensor, at: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy on clean images plus beta times the divergence around them."""
        clean, attacked = self.network(x), self.network(at)
        return (
            F.cross_entropy(clean, y)
            + self.settings.beta * divergence(attacked.log_softmax(1), clean.log_softmax(1)).mean()
        )
