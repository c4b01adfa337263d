"""Base of adversarial training: augmentation, attack, loss, weight perturbation, average, robust validation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from defenses.networks.registry import Role
from defenses.training.adversarial.attacks import pgd
from defenses.training.adversarial.awp import WeightPerturbation, preserved_buffers
from defenses.training.ema import decay_at
from defenses.training.objective import Material, Objective, accuracy, settings_of
from defenses.training.streams import augmented, stream
from defenses.utils.validation import Count, Flag, NotNegative, PartShare, Positive, Radius, Whole


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """Settings of every method of adversarial training.

    Args:
        eps: Linf radius, in pixels of [0, 1].
        validation_iterations: steps of the PGD whose robust accuracy chooses the checkpoint.
        validation_step: its step size; None: a quarter of eps.
        validation_images: number of images that it attacks.
        shift: see `augmented`.
        flip: see `augmented`.
        ema: decay of a running average of the weights, which is validated and shipped; 0: none.
        awp: gamma of the weight perturbation (Wu et al. 2020: .01 for PGD-AT, .005 for TRADES); 0: none.
        awp_warmup: steps before it begins.
        eps_warmup: steps over which eps and the step of the inner attack grow linearly from 0; small networks may
            collapse to one class under a large eps at the start. 0: none.
    """

    eps: Radius
    validation_iterations: Count = 20
    validation_step: Positive | None = None
    validation_images: Count = 1000
    shift: Whole = 0
    flip: Flag = False
    ema: PartShare = 0.0
    awp: NotNegative = 0.0
    awp_warmup: Whole = 0
    eps_warmup: Whole = 0

    def scaled(self, share: float) -> CommonSettings:
        """Return the settings with a share of eps."""
        return replace(self, eps=self.eps * share)


@dataclass(frozen=True, kw_only=True)
class AttackSettings(CommonSettings):
    """Settings of a method whose inner attack has several steps.

    Args:
        step: step size of the inner attack.
        iterations: its number of steps.
    """

    step: Positive
    iterations: Count = 10

    def scaled(self, share: float) -> AttackSettings:
        """Return the settings with a share of eps and of the step size."""
        return replace(self, eps=self.eps * share, step=self.step * share)


class AdversarialTraining(Objective):
    """Base of methods, which define `attack` and `loss_at`; ships the best robust accuracy on validation images.

    Args:
        network: classifier.
        data: images and labels.
        seed: seed of augmentation and attacks.
        table: see `table_type`.
    """

    select: ClassVar[str | None] = "robust"
    trains: ClassVar[tuple[Role, ...]] = ("classifier",)
    table_type: ClassVar[type[CommonSettings]] = CommonSettings
    attack_in_eval: ClassVar[bool] = False  # True: the attack sees the deployed statistics of batch norm
    settings: CommonSettings  # at the current step; `full`: of the recipe

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed)
        s = self.full = self.settings = settings_of(self.table_type, table)
        self.average = AveragedModel(network, use_buffers=True).eval() if s.ema else None
        self.perturbation = WeightPerturbation(network, s.awp)

    @abstractmethod
    def attack(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images to train on, without gradient."""

    @abstractmethod
    def loss_at(self, x: Tensor, at: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of clean images, attacked images and labels."""

    def batch(self, index: Tensor, step: int) -> tuple[Tensor, Tensor, torch.Generator]:
        """Return (augmented images, labels, generator of the step)."""
        generator = stream(self.seed, "augment", step, self.device)
        x = augmented(self.data.x[index], generator, shift=self.settings.shift, flip=self.settings.flip)
        return x, self.data.y[index], generator

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        if warmup := self.full.eps_warmup:
            self.settings = self.full.scaled(min(1.0, (step + 1) / warmup))
        x, y, generator = self.batch(index, step)
        self.network.train(not self.attack_in_eval)
        at = self.attack(x, y, generator)
        self.network.train()
        if self.settings.awp and step >= self.settings.awp_warmup:
            with preserved_buffers(self.network):
                self.perturbation.away(self.loss_at(x, at, y, generator))
        return self.loss_at(x, at, y, generator)

    def after(self, step: int) -> None:
        """Undo the perturbation, update the average."""
        self.perturbation.back()
        if self.average is not None:
            self.average.multi_avg_fn = get_ema_multi_avg_fn(decay_at(self.settings.ema, step))
            self.average.update_parameters(self.network)

    def state(self) -> dict[str, Any]:
        """Return the average."""
        return {} if self.average is None else {"average": self.average.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Objective`."""
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    @property
    def deployed(self) -> nn.Module:
        """Return the network that is validated and shipped."""
        return self.network if self.average is None else self.average.module

    def shipped(self) -> dict[str, Tensor]:
        """Return the weights or their average."""
        return self.deployed.state_dict()

    def validate(self) -> dict[str, float]:
        """Return clean accuracy, and robust accuracy under PGD with a fixed start."""
        s, n = self.full, self.full.validation_images
        x, y = self.data.x_validation, self.data.y_validation
        generator = stream(self.seed, "validation", 0, self.device)
        step = s.eps / 4 if s.validation_step is None else s.validation_step
        hits = 0
        for a, b in zip(torch.split(x[:n], 500), torch.split(y[:n], 500), strict=True):
            at = pgd(self.deployed, a, b, generator, eps=s.eps, step=step, iterations=s.validation_iterations)
            hits += int((self.deployed(at).argmax(1) == b).sum())
        return {"clean": accuracy(self.deployed, x, y), "robust": hits / len(y[:n])}
