"""Ensemble adversarial training (Tramer et al. 2018, arXiv 1705.07204)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.training.adversarial.attacks import fgsm
from defenses.training.adversarial.base import AdversarialTraining, CommonSettings
from defenses.training.objective import Material
from defenses.utils.validation import Names


@dataclass(frozen=True, kw_only=True)
class EnsembleSettings(CommonSettings):
    """Sources of the attacked images.

    Args:
        sources: names of trained classifiers, beside the one in training.
    """

    sources: Names = ("undefended",)


class EnsembleTraining(AdversarialTraining):
    """1/2 CE(x) + 1/2 CE(x_adv), with x_adv made on a random classifier among itself and static ones.

    The source is drawn for every batch; FGSM uses the label that it predicts, which does not leak the true one.
    """

    table_type: ClassVar[type[CommonSettings]] = EnsembleSettings
    settings: EnsembleSettings

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed, table)
        self.sources = [network, *(data.trained(name) for name in self.settings.sources)]

    def attack(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return FGSM images on a random source."""
        drawn = int(torch.randint(len(self.sources), (1,), generator=generator, device=x.device))
        source = self.sources[drawn]
        with torch.no_grad():
            predicted = source(x).argmax(1)
        return fgsm(source, x, predicted, eps=self.settings.eps)

    def loss_at(self, x: Tensor, at: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss with equal weights of clean and attacked images."""
        return F.cross_entropy(self.network(torch.cat((x, at))), torch.cat((y, y)))
