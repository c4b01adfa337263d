"""IGEBM (Du & Mordatch 2019): energies by chains with clipped gradients and a penalty on their squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.purifiers.igebm import ClippedLangevin
from defenses.training.objective import Material, settings_of
from defenses.training.objectives.chain_bank import Bank, BankTraining
from defenses.training.streams import augmented, stream
from defenses.utils.validation import Count, Flag, NotNegative, PartShare, Positive, Share, Whole


@dataclass(frozen=True)
class IgebmSettings:
    """Settings of chains, bank and regularisation; images in [0, 1].

    Args:
        steps: of a chain between two updates.
        rate: see `ClippedLangevin`.
        clip: see `ClippedLangevin`.
        noise: see `ClippedLangevin`.
        bank: number of chains.
        rejuvenate: share of the chains that restart from uniform noise in every batch.
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
    flip: Flag = False


class IgebmTraining(BankTraining):
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

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        s = self.settings = settings_of(self.table_type, table)
        super().__init__(network, data, seed, Bank((s.bank, *data.x.shape[1:]), 0.0, 1.0, seed, data.x.device))
        self.betas = (s.beta1, 0.999)
        self.walk = ClippedLangevin(network, steps=s.steps, rate=s.rate, clip=s.clip, noise=s.noise)

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
        self._difference = d.detach()
        loss: Tensor = d + 2 * s.squares * f.square().mean()
        return loss

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the difference of energies on validation images, and the gradient's norm there."""
        x = self.data.x_validation[:1000]
        d = self.network(x).mean() - self.network(self.bank.chains[:1000]).mean()
        return {"d": float(d), "r": float(self.walk.gradient(x).flatten(1).norm(dim=1).mean())}
