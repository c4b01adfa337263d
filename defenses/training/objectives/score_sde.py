"""Denoising score matching in continuous time (Song et al. 2021, arXiv 2011.13456, equation 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.networks.sde import SDE, START
from defenses.training.ema import Averaged, Ship
from defenses.training.objective import Material, settings_of
from defenses.training.streams import augmented, stream
from defenses.utils.validation import Flag, PartShare, Positive, Whole


@dataclass(frozen=True)
class SdeSettings:
    """Settings of average, gradients and augmentation.

    Args:
        ema: decay of the running average of the weights.
        ship: "ema" ships the average, as the paper does, "raw" the last weights.
        clip: largest norm of the gradient.
        shift: see `augmented`.
        flip: see `augmented`.
    """

    ema: PartShare = 0.9999
    ship: Ship = "ema"
    clip: Positive = 1.0
    shift: Whole = 0
    flip: Flag = False


class ScoreSDE(Averaged):
    """E || std(t) s(x_t, t) + z ||^2 = E || network(x_t, t) - z ||^2, the mean over pixels; t uniform on [1e-5, 1].

    Args:
        network: noise predictor with its SDE as attribute `sde`.
        data: images.
        seed: seed of times, noise and augmentation.
        table: see `SdeSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("noise predictor",)
    table_type: ClassVar[type[Any]] = SdeSettings
    settings: SdeSettings

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        s = self.settings = settings_of(self.table_type, table)
        super().__init__(network, data, seed, decay=s.ema, ship=s.ship)
        self.sde: SDE = network.sde  # type: ignore[assignment]

    def _loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        t = START + (1 - START) * torch.rand(len(x), generator=generator, device=x.device)
        z = torch.randn(x.shape, generator=generator, device=x.device)
        mean, std = (v.view(-1, 1, 1, 1) for v in (self.sde.mean(t), self.sde.std(t)))
        loss: Tensor = (self.network(mean * self.sde.encode(x) + std * z, t) - z).square().mean()
        return loss

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        generator = stream(self.seed, "noise", step, self.device)
        x = augmented(self.data.x[index], generator, shift=self.settings.shift, flip=self.settings.flip)
        return self._loss(x, generator)

    def before(self, step: int) -> None:
        """Clip the gradient's norm."""
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss on validation images."""
        generator = stream(self.seed, "validation", 0, self.device)
        parts = [self._loss(x, generator) * len(x) for x in torch.split(self.data.x_validation, 500) for _ in range(8)]
        return float(torch.stack(parts).sum()) / (8 * len(self.data.x_validation))
