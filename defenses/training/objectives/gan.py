"""Generators by an adversarial game: DCGAN (Radford et al. 2016) or WGAN-GP (Gulrajani et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.core.noise import Noise
from defenses.core.purify import purify
from defenses.networks.registry import Role, build_network
from defenses.purifiers.defense_gan import DefenseGAN
from defenses.training.ema import Ship, decay_at
from defenses.training.objective import Material, Objective, settings_of
from defenses.training.streams import stream, stream_seed
from defenses.utils.validation import Count, NotNegative, PartShare, Positive


@dataclass(frozen=True)
class GanSettings:
    """Settings of the adversarial game.

    Args:
        loss: "dcgan", cross-entropy of real and generated images; "wgan-gp", a critic with a gradient penalty and no
            batch norm.
        width: channels of the discriminator's first layer.
        critic_lr: learning rate of the discriminator's Adam.
        critic_steps: its steps per step of the generator (WGAN-GP: 5).
        penalty: weight of (|grad D| - 1)^2 at points between real and generated images.
        beta1: of both Adams.
        beta2: of both Adams (WGAN-GP: .9).
        ema: decay of the running average of the generator's weights.
        ship: "raw" ships the last weights, "ema" their average.
    """

    loss: Literal["dcgan", "wgan-gp"] = "dcgan"
    width: Count = 64
    critic_lr: Positive = 2e-4
    critic_steps: Count = 1
    penalty: NotNegative = 10.0
    beta1: PartShare = 0.5
    beta2: PartShare = 0.999
    ema: PartShare = 0.999
    ship: Ship = "raw"


class GanTraining(Objective):
    """The generator's loss, with steps of the discriminator before each of its own.

    Args:
        network: generator, latent vectors [B, D] -> images in [-1, 1].
        data: images (in [0, 1]).
        seed: seed of the discriminator and of the latent vectors.
        table: see `GanSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("generator",)
    table_type: ClassVar[type[Any]] = GanSettings
    settings: GanSettings

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed)
        s = self.settings = settings_of(self.table_type, table)
        self.betas = (s.beta1, s.beta2)
        shape = {"in_channels": data.x.shape[1], "size": data.x.shape[2], "width": s.width}
        norm = {"norm": s.loss == "dcgan"}
        critic = build_network("dcgan-discriminator", seed=stream_seed(seed, "discriminator"), **shape, **norm)
        self.critic = critic.to(self.device)
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=s.critic_lr, betas=self.betas)
        self.average = {n: v.detach().clone() for n, v in network.state_dict().items()}
        self._values = torch.zeros(2, device=self.device)

    def _generated(self, rows: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(rows, self.network.latent, generator=generator, device=self.device)  # type: ignore[call-overload]
        images: Tensor = self.network(z)
        return images

    def _critic_loss(self, real: Tensor, generated: Tensor, generator: torch.Generator) -> Tensor:
        if self.settings.loss == "dcgan":
            good, bad = self.critic(real), self.critic(generated)
            of_real = F.binary_cross_entropy_with_logits(good, torch.ones_like(good))
            return of_real + F.binary_cross_entropy_with_logits(bad, torch.zeros_like(bad))
        share = torch.rand(len(real), 1, 1, 1, generator=generator, device=self.device)
        between = (real + share * (generated - real)).requires_grad_()
        slope = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)[0]
        penalty: Tensor = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        difference: Tensor = self.critic(generated).mean() - self.critic(real).mean()
        return difference + self.settings.penalty * penalty

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        generator = stream(self.seed, "latent", step, self.device)
        for i in range(self.settings.critic_steps):
            # Further steps of the critic use random images.
            count = len(self.data.x)
            at = torch.randint(count, index.shape, generator=generator, device=self.device) if i else index
            generated = self._generated(len(at), generator).detach()
            critic_loss = self._critic_loss(2 * self.data.x[at] - 1, generated, generator)
            self.optimizer.zero_grad(set_to_none=True)
            critic_loss.backward()
            self.optimizer.step()
        bad = self.critic(self._generated(len(index), generator))
        if self.settings.loss == "dcgan":
            loss = F.binary_cross_entropy_with_logits(bad, torch.ones_like(bad))
        else:
            loss = -bad.mean()
        self._values = torch.stack((critic_loss.detach(), loss.detach()))
        return loss

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Update the average."""
        decay = decay_at(self.settings.ema, step)
        for n, v in self.network.state_dict().items():
            if v.is_floating_point():
                self.average[n].lerp_(v, 1 - decay)

    def state(self) -> dict[str, Any]:
        """Return the discriminator, its optimizer and the average."""
        return {"critic": self.critic.state_dict(), "adam": self.optimizer.state_dict(), "average": self.average}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Objective`."""
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["adam"])
        self.average = {n: v.to(self.device) for n, v in state["average"].items()}

    def monitor(self) -> dict[str, float]:
        """Return the two losses."""
        return {"critic": float(self._values[0]), "generator": float(self._values[1])}

    def validate(self) -> dict[str, float]:
        """Return the mean squared error of reconstructed validation images: 4 restarts, 50 steps, last weights."""
        x = self.data.x_validation[:100]
        pixels = x[0].numel()
        search = DefenseGAN(self.network, restarts=4, steps=50, lr=pixels / 32, variance=1 / 4)
        reconstructed = purify(search, x, Noise.of(self.seed, len(x), self.device))
        return {"reconstruction": float((reconstructed - x).square().mean())}

    def shipped(self) -> dict[str, Tensor]:
        """Return the weights or their average."""
        return self.network.state_dict() if self.settings.ship == "raw" else self.average
