"""MagNet's denoising autoencoder (Meng & Chen 2017): mean squared error to the clean image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.training.objective import Material, Objective, settings_of
from defenses.training.streams import augmented, stream
from defenses.utils.validation import Flag, NotNegative, Whole


@dataclass(frozen=True)
class DenoisingSettings:
    """Settings of noise and augmentation.

    Args:
        noise: standard deviation of the noise on the input, in pixels of [0, 1]; noisy images are clamped.
        shift: see `augmented`.
        flip: see `augmented`.
    """

    noise: NotNegative = 0.1
    shift: Whole = 0
    flip: Flag = False


class DenoisingTraining(Objective):
    """|| AE(clamp(x + noise z)) - x ||^2, the mean over pixels.

    Args:
        network: autoencoder, images in [0, 1] -> the same.
        data: images.
        seed: seed of noise and augmentation.
        table: see `DenoisingSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("autoencoder", "variational autoencoder")
    table_type: ClassVar[type[Any]] = DenoisingSettings
    settings: DenoisingSettings

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed)
        self.settings = settings_of(self.table_type, table)

    def _loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        z = torch.randn(x.shape, generator=generator, device=x.device)
        noisy = (x + self.settings.noise * z).clamp(0, 1)
        denoised: Tensor = self.network(noisy)
        return (denoised - x).square().mean()

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        generator = stream(self.seed, "noise", step, self.device)
        x = augmented(self.data.x[index], generator, shift=self.settings.shift, flip=self.settings.flip)
        return self._loss(x, generator)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the errors on noisy and on clean validation images."""
        x = self.data.x_validation[:1000]
        noisy = self._loss(x, stream(self.seed, "validation", 0, self.device))
        return {"noisy": float(noisy), "clean": float((self.network(x) - x).square().mean())}
