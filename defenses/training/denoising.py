"""Training of a denoising autoencoder (MagNet; Meng & Chen 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from defenses.training.objective import Material, Objective, settings_of
from defenses.training.streams import augmented, stream


@dataclass(frozen=True)
class DenoisingSettings:
    """Noise and augmentation.

    Args:
        sigma: standard deviation of the noise, in pixels of [0, 1]; the noisy image is clamped to [0, 1].
        shift: see `augmented`.
        flip: see `augmented`.
    """

    sigma: float = 0.1
    shift: int = 0
    flip: bool = False


class Denoising(Objective):
    """mean (AE(x + sigma z) - x)^2 over pixels.

    Args:
        network: autoencoder, images in [0, 1] -> the same.
        data: images.
        seed: seed of noise and augmentation.
        table: see `DenoisingSettings`.
    """

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, Any]):
        super().__init__(network, data, seed)
        self.settings = settings_of(DenoisingSettings, table)

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        generator = stream(self.seed, "noise", step, self.device)
        x = augmented(self.data.x[index], generator, shift=self.settings.shift, flip=self.settings.flip)
        return self._error(x, generator)

    def _error(self, x: Tensor, generator: torch.Generator) -> Tensor:
        z = torch.randn(x.shape, generator=generator, device=x.device)
        return (self.network((x + self.settings.sigma * z).clamp(0, 1)) - x).square().mean()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss on validation images, and the error on them without noise."""
        x, generator = self.data.x_validation, stream(self.seed, "validation", 0, self.device)
        parts = [(self._error(a, generator), (self.network(a) - a).square().mean(), len(a)) for a in x.split(500)]
        return {
            "noisy": sum(float(noisy) * n for noisy, _, n in parts) / len(x),
            "clean": sum(float(clean) * n for _, clean, n in parts) / len(x),
        }
