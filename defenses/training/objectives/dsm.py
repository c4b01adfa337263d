"""Denoising score matching of ADP's network (Yoon et al. 2021, section 3; Song & Ermon 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.training.ema import Averaged, Ship
from defenses.training.objective import Material, settings_of
from defenses.training.streams import augmented, stream
from defenses.utils.validation import Count, Flag, PartShare, Positive, Whole


@dataclass(frozen=True)
class DsmSettings:
    """Settings of noise levels, average and augmentation.

    Args:
        sigma_max: largest noise, in pixels of [0, 1].
        sigma_min: smallest noise.
        levels: L, number of levels, geometric between the two.
        ema: decay of the running average of the weights.
        ship: "raw" ships the last weights, as ADP's release does, "ema" their average.
        shift: see `augmented`.
        flip: see `augmented`.
    """

    sigma_max: Positive
    sigma_min: Positive
    levels: Count
    ema: PartShare = 0.999
    ship: Ship = "raw"
    shift: Whole = 0
    flip: Flag = False


class ScoreMatching(Averaged):
    """1/2 sigma^2 || f/sigma + z/sigma ||^2 = 1/2 || f(x + sigma z) + z ||^2, summed over pixels.

    The score is f / sigma_i in training; the network returns f, which purification uses. The noise level is no input.

    Args:
        network: score network, images in [0, 1] -> f.
        data: images.
        seed: seed of noise and augmentation.
        table: see `DsmSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("score network",)
    table_type: ClassVar[type[Any]] = DsmSettings
    settings: DsmSettings

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        s = self.settings = settings_of(self.table_type, table)
        super().__init__(network, data, seed, decay=s.ema, ship=s.ship)
        steps = torch.linspace(0, 1, s.levels, device=self.device)
        self.sigmas = s.sigma_max * (s.sigma_min / s.sigma_max) ** steps

    def _loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        level = torch.randint(len(self.sigmas), (len(x),), generator=generator, device=x.device)
        z = torch.randn(x.shape, generator=generator, device=x.device)
        f = self.network(x + self.sigmas[level].view(-1, 1, 1, 1) * z)
        squares: Tensor = (f + z).square().flatten(1).sum(1)
        return 0.5 * squares.mean()

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        generator = stream(self.seed, "noise", step, self.device)
        x = augmented(self.data.x[index], generator, shift=self.settings.shift, flip=self.settings.flip)
        return self._loss(x, generator)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss on validation images."""
        generator = stream(self.seed, "validation", 0, self.device)
        parts = [self._loss(x, generator) * len(x) for x in torch.split(self.data.x_validation, 500) for _ in range(4)]
        return float(torch.stack(parts).sum()) / (4 * len(self.data.x_validation))
