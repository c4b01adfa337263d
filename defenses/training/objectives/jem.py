"""JEM (Grathwohl et al. 2020): a classifier that is also an energy, by cross-entropy and maximum likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.purifiers.jem import JointEnergy
from defenses.purifiers.langevin import EnergyGradient
from defenses.training.objective import Material, accuracy, settings_of
from defenses.training.objectives.chain_bank import Bank, BankTraining
from defenses.training.streams import augmented, stream
from defenses.utils.validation import Count, Flag, NotNegative, Positive, Share, Whole


@dataclass(frozen=True)
class JemSettings:
    """Settings of Langevin dynamics, bank and data; images in [-1, 1].

    Args:
        rate: factor of the gradient in a step of the chains.
        eps: standard deviation of the noise of a step.
        steps: of a chain between two updates.
        bank: number of chains.
        rejuvenate: share of the chains that restart from uniform noise in every batch.
        sigma: standard deviation of the noise on data.
        weight: of the likelihood beside the cross-entropy.
        warm_up: steps over which `weight` grows from 0.
        decay: weight of the mean squared log-density of data and chains, which fixes its level; JEM: 0.
        shift: see `augmented`.
        flip: see `augmented`.
    """

    rate: Positive = 1.0
    eps: NotNegative = 0.01
    steps: Count = 20
    bank: Count = 10000
    rejuvenate: Share = 0.05
    sigma: NotNegative = 0.03
    weight: NotNegative = 1.0
    warm_up: Whole = 0
    decay: NotNegative = 0.0
    shift: Whole = 0
    flip: Flag = False


class JemTraining(BankTraining):
    """CE(x) - (mean logsumexp(x+) - mean logsumexp(x-)), x+ data with noise, x- chains of the bank.

    Ships the checkpoint of best accuracy on validation images: the weights of a joint training may diverge.

    Args:
        network: classifier, images in [0, 1] -> logits.
        data: images and labels.
        seed: seed of bank, noise and chains.
        table: see `JemSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("classifier",)
    table_type: ClassVar[type[Any]] = JemSettings
    settings: JemSettings
    select: ClassVar[str | None] = "clean"

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        s = self.settings = settings_of(self.table_type, table)
        super().__init__(network, data, seed, Bank((s.bank, *data.x.shape[1:]), -1.0, 1.0, seed, data.x.device))
        self.energy = JointEnergy(network)
        self.gradient = EnergyGradient(self.energy)

    def _noisy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, device=self.device)
        return 2 * x - 1 + self.settings.sigma * noise

    @torch.no_grad()
    def _chains(self, rows: int, generator: torch.Generator) -> Tensor:
        s = self.settings
        at, x = self.bank.taken(rows, s.rejuvenate, generator)
        self.network.eval()
        for _ in range(s.steps):
            noise = torch.randn(x.shape, generator=generator, device=self.device)
            x = x - s.rate * self.gradient(x) + s.eps * noise
        self.network.train()
        self.bank.put(at, x)
        return x

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        s, y = self.settings, self.data.y[index]
        generator = stream(self.seed, "chains", step, self.device)
        x = augmented(self.data.x[index], generator, shift=s.shift, flip=s.flip)
        x = self._noisy(x, generator)
        chains = self._chains(len(x), generator)
        logits = self.network((torch.cat((x, chains)) + 1) / 2)
        density = logits.logsumexp(1)
        d = density[: len(x)].mean() - density[len(x) :].mean()
        self._difference = d.detach()
        weight = s.weight * min(1.0, (step + 1) / max(s.warm_up, 1))
        loss: Tensor = F.cross_entropy(logits[: len(x)], y) - weight * d + s.decay * density.square().mean()
        return loss

    def validate(self) -> dict[str, float]:
        """Return the clean accuracy, and the difference of log-densities on validation images."""
        x = self.data.x_validation[:1000]
        with torch.no_grad():
            noisy = self._noisy(x, stream(self.seed, "validation", 0, self.device))
            d = self.energy(self.bank.chains[:1000]).mean() - self.energy(noisy).mean()
        return {"clean": accuracy(self.network, self.data.x_validation, self.data.y_validation), "d": float(d)}
