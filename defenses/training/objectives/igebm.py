"""IGEBM (Du & Mordatch 2019): energies by chains with clipped gradients, kept small by their squares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.purifiers.igebm import ClippedLangevin
from defenses.training.objective import Material, Objective, settings_of
from defenses.training.objectives.chain_bank import Bank
from defenses.training.streams import augmented, stream
from defenses.utils.settings import Count, NotNegative, PartShare, Positive, Share, Whole


@dataclass(frozen=True)
class IgebmSettings:
    """Chains, bank, regularisation; images in [0, 1].

    Args:
        steps: of a chain between two updates.
        rate: see `ClippedLangevin`.
        clip: see `ClippedLangevin`.
        noise: see `ClippedLangevin`.
        bank: number of chains.
        rejuvenate: share of the chains that start anew, from uniform noise, in every batch.
        squares: weight of E+^2 + E-^2.
        beta1: of Adam.
        sigma: standard deviation of the noise on data, in pixels of [0, 1]; IGEBM: 0.
        shift: see `augmented`.
        flip: see `augmented`.
    """

    steps: Count = 60
    rate: Positive = 10.0
    clip: Positive = 0.01
    noise: NotNegative = 0.005
    bank: Count = 10000
    rejuvenate: Share = 0.05
    squares: NotNegative = 1.0
    beta1: PartShare = 0.0
    sigma: NotNegative = 0.0
    shift: Whole = 0
    flip: bool = False


class IgebmTraining(Objective):
    """E+ - E- + E+^2 + E-^2, E+ of data and E- of chains of the bank.

    Args:
        network: energy, images in [0, 1] -> f [B].
        data: images.
        seed: seed of bank and chains.
        table: see `IgebmSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("energy of images in [0, 1]",)
    table_type: ClassVar[type[Any]] = IgebmSettings
    settings: IgebmSettings

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, Any]):
        super().__init__(network, data, seed)
        s = self.settings = settings_of(self.table_type, table)
        self.betas = (s.beta1, 0.999)
        self.walk = ClippedLangevin(network, steps=s.steps, rate=s.rate, clip=s.clip, noise=s.noise)
        self.bank = Bank((s.bank, *data.x.shape[1:]), 0.0, 1.0, seed, self.device)
        self._d = torch.zeros((), device=self.device)

    @torch.no_grad()
    def _chains(self, rows: int, generator: torch.Generator) -> Tensor:
        at, x = self.bank.taken(rows, self.settings.rejuvenate, generator)
        self.network.eval()
        state = {"u": x}
        for k in range(self.settings.steps):
            noise = torch.randn(x.shape, generator=generator, device=self.device)
            state = self.walk.step(state, {}, k, (noise,))
        self.network.train()
        self.bank.put(at, state["u"])
        return state["u"]

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        s = self.settings
        generator = stream(self.seed, "chains", step, self.device)
        x = augmented(self.data.x[index], generator, shift=s.shift, flip=s.flip)
        x = x + s.sigma * torch.randn(x.shape, generator=generator, device=self.device)
        f = self.network(torch.cat((x, self._chains(len(x), generator))))
        d = f[: len(x)].mean() - f[len(x) :].mean()
        self._d = d.detach()
        loss: Tensor = d + 2 * s.squares * f.square().mean()
        return loss

    def state(self) -> dict[str, Any]:
        """The bank."""
        return {"bank": self.bank.chains}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Objective`."""
        self.bank.chains = state["bank"].to(self.device)

    def monitor(self) -> dict[str, float]:
        """The difference of energies, data less chains (far from 0 is divergence)."""
        return {"d": float(self._d)}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The difference of energies on validation images, and the gradient's norm there."""
        x = self.data.x_validation[:1000]
        d = self.network(x).mean() - self.network(self.bank.chains[:1000]).mean()
        return {"d": float(d), "r": float(self.walk.gradient(x).flatten(1).norm(dim=1).mean())}
