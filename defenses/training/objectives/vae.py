"""Defense-VAE (Li & Ji 2019): a variational autoencoder from attacked to clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.networks.vae import VAE
from defenses.training.adversarial.attacks import pgd
from defenses.training.objective import Material, Objective, settings_of
from defenses.training.streams import stream
from defenses.utils.validation import Count, NotNegative, Radius, Share


@dataclass(frozen=True)
class VaeSettings:
    """Settings of the pairs and of the divergence.

    Args:
        eps: largest Linf radius of the attack on `source`, in pixels of [0, 1]; every batch draws one below it.
        iterations: steps of the attack (PGD; 1 is a step of FGSM from a random start).
        source: name of the attacked classifier.
        clean: share of the images that are not attacked.
        divergence: r, weight of the Kullback-Leibler divergence.
    """

    eps: Radius
    iterations: Count = 5
    source: str = "undefended"
    clean: Share = 0.25
    divergence: NotNegative = 1.0


class VaeTraining(Objective):
    """BCE(decoded, clean) + r KL(q(z | attacked) || N(0, 1)), summed over pixels and latent values.

    Args:
        network: a `VAE`.
        data: images and labels, and the trained `source`.
        seed: seed of radii, attacks and latent noise.
        table: see `VaeSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("variational autoencoder",)
    table_type: ClassVar[type[Any]] = VaeSettings
    settings: VaeSettings
    network: VAE

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed)
        self.settings = settings_of(self.table_type, table)
        self.source = data.trained(self.settings.source)

    def _attacked(self, x: Tensor, y: Tensor, generator: torch.Generator, eps: float) -> Tensor:
        n = self.settings.iterations
        return pgd(self.source, x, y, generator, eps=eps, step=2.5 * eps / n if n > 1 else eps, iterations=n)

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        s, x = self.settings, self.data.x[index]
        generator = stream(self.seed, "pairs", step, self.device)
        eps = s.eps * float(torch.rand((), generator=generator, device=self.device))
        n = round(s.clean * len(x))
        images = torch.cat((x[:n], self._attacked(x[n:], self.data.y[index][n:], generator, eps)))
        mean, log_variance = self.network.encode(images)
        z = torch.randn(mean.shape, generator=generator, device=self.device)
        decoded = self.network.decoder(mean + (log_variance / 2).exp() * z)
        error = F.binary_cross_entropy_with_logits(decoded, x, reduction="none").flatten(1).sum(1)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1) / 2
        return (error + s.divergence * divergence).mean()

    def validate(self) -> dict[str, float]:
        """Return mean squared errors of reconstructions and the accuracy of the source on them, clean and attacked."""
        x, y = self.data.x_validation[:1000], self.data.y_validation[:1000]
        at = self._attacked(x, y, stream(self.seed, "validation", 0, self.device), self.settings.eps)
        metrics = {}
        with torch.no_grad():
            for name, images in (("clean", x), ("attacked", at)):
                decoded = self.network(images)
                metrics[f"{name}_error"] = float((decoded - x).square().mean())
                metrics[name] = float((self.source(decoded).argmax(1) == y).float().mean())
        return metrics
