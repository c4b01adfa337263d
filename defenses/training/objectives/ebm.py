"""Energies by maximum likelihood with a persistent bank of Langevin chains (Hill et al. 2021; Nijkamp et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.purifiers.langevin import EnergyGradient
from defenses.training.objective import Material, Objective, settings_of
from defenses.training.streams import stream
from defenses.utils.validation import Count, Flag, NotNegative, Positive, Share, Whole


@dataclass(frozen=True)
class EbmSettings:
    """Settings of Langevin dynamics and bank; images in [-1, 1].

    Args:
        eps: step size; the temperature is eps^2 / 2.
        eps_data: standard deviation of the noise on data. Without noise a constant background has no bounded density.
        langevin_steps: K, steps of a chain between two updates.
        bank: number of chains; 0: one per training image.
        rejuvenate: share of the chains that restart in every batch; Hill: none.
        rejuvenate_from: their start.
        flip: mirror half of the data.
    """

    eps: Positive
    eps_data: NotNegative
    langevin_steps: Count
    bank: Whole = 0
    rejuvenate: Share = 0.0
    rejuvenate_from: Literal["noise", "data"] = "noise"
    flip: Flag = False


class EnergyTraining(Objective):
    """Descent on d = (mean f(x+) - mean f(x-)) / (eps^2 / 2), x+ data with noise, x- chains of the bank.

    Args:
        network: energy, images in [-1, 1] -> f [B].
        data: images (in [0, 1]).
        seed: seed of bank, noise and chains.
        table: see `EbmSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("energy of images in [-1, 1]",)
    table_type: ClassVar[type[Any]] = EbmSettings
    settings: EbmSettings

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed)
        s = self.settings = settings_of(self.table_type, table)
        self.gradient = EnergyGradient(network)
        self.temperature = s.eps**2 / 2
        shape = (s.bank or len(data.x), *data.x.shape[1:])
        self.bank = self._uniform(shape, stream(seed, "bank", 0, self.device))
        self._norm = self._d = torch.zeros((), device=self.device)

    def _uniform(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(shape, generator=generator, device=self.device) - 1

    def _positive(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if self.settings.flip:
            mirrored = torch.rand(len(x), generator=generator, device=self.device) < 0.5
            x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x)
        noise = torch.randn(x.shape, generator=generator, device=self.device)
        return 2 * x - 1 + self.settings.eps_data * noise

    @torch.no_grad()
    def _negative(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return chains of the bank after K more steps, and store them."""
        s = self.settings
        at = torch.randperm(len(self.bank), generator=generator, device=self.device)[:rows]
        x = self.bank[at]
        if s.rejuvenate:
            anew = torch.rand(len(x), generator=generator, device=self.device) < s.rejuvenate
            fresh = self._uniform(tuple(x.shape), generator)
            if s.rejuvenate_from == "data":
                pick = torch.randint(len(self.data.x), (len(x),), generator=generator, device=self.device)
                fresh = 2 * self.data.x[pick] - 1
            x = torch.where(anew.view(-1, 1, 1, 1), fresh, x)
        noise = torch.empty_like(x)
        slope = x
        for _ in range(s.langevin_steps):
            slope = self.gradient(x)
            x = torch.add(x - slope, noise.normal_(generator=generator), alpha=s.eps)
        self._norm = slope.flatten(1).norm(dim=1).mean()
        self.bank[at] = x
        return x

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        generator = stream(self.seed, "chains", step, self.device)
        positive = self._positive(self.data.x[index], generator)
        negative = self._negative(len(index), generator)
        f = self.network(torch.cat((positive, negative)))
        d: Tensor = (f[: len(index)].mean() - f[len(index) :].mean()) / self.temperature
        self._d = d.detach()
        return d

    def state(self) -> dict[str, Tensor]:
        """Return the bank."""
        return {"bank": self.bank}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Objective`."""
        self.bank = state["bank"].to(self.device)

    def monitor(self) -> dict[str, float]:
        """Return the loss d (-inf: collapse) and r, the mean gradient norm at the chains' ends (rising: unstable)."""
        return {"d": float(self._d), "r": float(self._norm)}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return d and r against validation images, and the share of the bank's pixels outside [-1, 1]."""
        generator = stream(self.seed, "validation", 0, self.device)
        positive = self._positive(self.data.x_validation[:1000], generator)
        bank = self.bank[:1000]
        d = (self.network(positive).mean() - self.network(bank).mean()) / self.temperature
        r = self.gradient(bank).flatten(1).norm(dim=1).mean()
        return {"d": float(d), "r": float(r), "bank_outside": float((bank.abs() > 1).float().mean())}
