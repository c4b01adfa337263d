"""Training under Gaussian noise (Lecuyer et al. 2019; Cohen, Rosenfeld, Kolter, ICML 2019, arXiv 1902.02918)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.training.objective import Material, Objective, accuracy, settings_of
from defenses.training.streams import augmented, stream
from defenses.utils.validation import Count, Flag, Positive, Whole


@dataclass(frozen=True)
class GaussianSettings:
    """Settings of noise and augmentation.

    Args:
        sigma: standard deviation, in pixels of [0, 1]; the one of the certificate.
        validation_draws: draws of every validation image for the choice of the checkpoint.
        shift: see `augmented`.
        flip: see `augmented`.
    """

    sigma: Positive
    validation_draws: Count = 4
    shift: Whole = 0
    flip: Flag = False


class GaussianTraining(Objective):
    """Cross-entropy on images with one draw of noise each; ships the best accuracy on noisy validation images.

    Args:
        network: classifier.
        data: images and labels.
        seed: seed of augmentation and noise.
        table: see `GaussianSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("classifier",)
    table_type: ClassVar[type[Any]] = GaussianSettings
    settings: GaussianSettings
    select: ClassVar[str | None] = "noisy"

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed)
        self.settings = settings_of(self.table_type, table)

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        s, generator = self.settings, stream(self.seed, "augment", step, self.device)
        x = augmented(self.data.x[index], generator, shift=s.shift, flip=s.flip)
        return F.cross_entropy(self.network(self._noisy(x, generator)), self.data.y[index])

    def validate(self) -> dict[str, float]:
        """Return the accuracy on clean images, and on noisy ones with fixed noise."""
        x, y, draws = self.data.x_validation, self.data.y_validation, self.settings.validation_draws
        generator = stream(self.seed, "validation", 0, self.device)
        noisy = [accuracy(self.network, self._noisy(x, generator), y) for _ in range(draws)]
        return {"clean": accuracy(self.network, x, y), "noisy": sum(noisy) / draws}

    def _noisy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.settings.sigma * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
