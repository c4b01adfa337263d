"""Adversarial training with PGD (Madry et al. 2018, arXiv 1706.06083), the checkpoint chosen as Rice et al. 2020 do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.training.objective import Material, Objective, accuracy, settings_of
from defenses.training.streams import augmented, stream


@dataclass(frozen=True)
class PgdSettings:
    """The inner attack and the augmentation.

    Args:
        eps: Linf radius, in pixels of [0, 1].
        step: step size of the attack.
        iterations: steps of the attack in training.
        validation_iterations: steps of the attack that chooses the checkpoint.
        validation_images: how many validation images it attacks.
        shift: see `augmented`.
        flip: see `augmented`.
    """

    eps: float
    step: float
    iterations: int = 10
    validation_iterations: int = 20
    validation_images: int = 1000
    shift: int = 0
    flip: bool = False


def pgd(
    network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, *, eps: float, step: float, iterations: int
) -> Tensor:
    """Linf PGD on the cross-entropy from a uniform start; the last iterate.

    Args:
        network: classifier, left in the mode it is in.
        x: images [B, C, H, W] in [0, 1].
        y: labels [B].
        generator: where the start comes from.
        eps: radius.
        step: step size.
        iterations: number of steps.
    """
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    at = (x + eps * (2 * noise - 1)).clamp(0, 1)
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    for _ in range(iterations):
        with torch.enable_grad():
            at.requires_grad_()
            gradient = torch.autograd.grad(F.cross_entropy(network(at), y, reduction="sum"), at)[0]
        at = torch.clamp(at.detach() + step * gradient.sign(), low, high)
    return at.detach()


class PgdTraining(Objective):
    """Cross-entropy on PGD's images; ships the checkpoint of best robust accuracy on validation images.

    Args:
        network: classifier.
        data: images and labels.
        seed: seed of augmentation and starts.
        table: see `PgdSettings`.
    """

    select: ClassVar[str | None] = "robust"

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, Any]):
        super().__init__(network, data, seed)
        self.settings = settings_of(PgdSettings, table)

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        s, y = self.settings, self.data.y[index]
        generator = stream(self.seed, "augment", step, self.device)
        x = augmented(self.data.x[index], generator, shift=s.shift, flip=s.flip)
        x = pgd(self.network, x, y, generator, eps=s.eps, step=s.step, iterations=s.iterations)
        return F.cross_entropy(self.network(x), y)

    def validate(self) -> dict[str, float]:
        """Clean accuracy, and robust accuracy under PGD with a fixed start."""
        s, n = self.settings, self.settings.validation_images
        x, y = self.data.x_validation, self.data.y_validation
        generator = stream(self.seed, "validation", 0, self.device)
        hits = 0
        for a, b in zip(torch.split(x[:n], 500), torch.split(y[:n], 500), strict=True):
            at = pgd(self.network, a, b, generator, eps=s.eps, step=s.step, iterations=s.validation_iterations)
            hits += int((self.network(at).argmax(1) == b).sum())
        return {"clean": accuracy(self.network, x, y), "robust": hits / len(y[:n])}
