"""Denoising score matching of ADP's network (Yoon et al. 2021, section 3; Song & Ermon 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from defenses.errors import UserError
from defenses.training.objective import Material, Objective, settings_of
from defenses.training.streams import augmented, stream


@dataclass(frozen=True)
class DsmSettings:
    """Noise levels, average, augmentation.

    Args:
        sigma_max: largest noise, in pixels of [0, 1].
        sigma_min: smallest noise.
        levels: L, how many levels, geometric between the two.
        ema: decay of the running average of the weights, kept in any case.
        ship: "raw" ships the last weights, as ADP's release does, "ema" their average.
        shift: see `augmented`.
        flip: see `augmented`.
    """

    sigma_max: float
    sigma_min: float
    levels: int
    ema: float = 0.999
    ship: Literal["raw", "ema"] = "raw"
    shift: int = 0
    flip: bool = False


class ScoreMatching(Objective):
    """1/2 sigma^2 || f/sigma + z/sigma ||^2 = 1/2 || f(x + sigma z) + z ||^2, summed over pixels.

    The score is f / sigma_i in training; the network returns f, which is what purification uses. It is not told the
    noise level.

    Args:
        network: score network, images in [0, 1] -> f.
        data: images.
        seed: seed of noise and augmentation.
        table: see `DsmSettings`.
    """

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, Any]):
        super().__init__(network, data, seed)
        self.settings = settings_of(DsmSettings, table)
        s = self.settings
        if s.ship not in ("raw", "ema"):
            raise UserError(f'recipe: ship is "{s.ship}"; it must be "raw" or "ema"')
        steps = torch.linspace(0, 1, s.levels, device=self.device)
        self.sigmas = s.sigma_max * (s.sigma_min / s.sigma_max) ** steps
        self.average = {n: p.detach().clone() for n, p in network.named_parameters()}

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
    def after(self, step: int) -> None:
        """Update the average."""
        # A short memory at first, or the random initial weights would stay in the average of a short training.
        decay = min(self.settings.ema, (1 + step) / (10 + step))
        for n, p in self.network.named_parameters():
            self.average[n].lerp_(p, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The average."""
        return self.average

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Objective`."""
        self.average = {n: v.to(self.device) for n, v in state.items()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss on validation images, with the weights as they are and with their average."""
        raw = {n: p.detach().clone() for n, p in self.network.named_parameters()}
        found = {"dsm": self._validation_loss()}
        self._put(self.average)
        found["dsm_ema"] = self._validation_loss()
        self._put(raw)
        return found

    def _validation_loss(self) -> float:
        generator = stream(self.seed, "validation", 0, self.device)
        parts = [self._loss(x, generator) * len(x) for x in torch.split(self.data.x_validation, 500) for _ in range(4)]
        return float(torch.stack(parts).sum()) / (4 * len(self.data.x_validation))

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for n, p in self.network.named_parameters():
            p.copy_(weights[n])

    def shipped(self) -> dict[str, Tensor]:
        """The weights, or their average."""
        if self.settings.ship == "raw":
            return self.network.state_dict()
        return {**self.network.state_dict(), **self.average}
