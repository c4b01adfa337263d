"""MagNet's denoising autoencoder (Meng & Chen 2017): mean squared error to the clean image, or to a purified one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from defenses.core.noise import Noise
from defenses.core.purify import purify
from defenses.networks.registry import Role
from defenses.training.objective import Material, Objective, settings_of
from defenses.training.streams import augmented, stream
from defenses.utils.errors import UserError
from defenses.utils.validation import Flag, NotNegative, Whole


@dataclass(frozen=True)
class DenoisingSettings:
    """Settings of noise, augmentation and targets.

    Args:
        noise: standard deviation of the noise on the input, in pixels of [0, 1]; noisy images are clamped.
        shift: see `augmented`.
        flip: see `augmented`.
        purifier: name of a defense whose purified images are the targets, with fresh noise each time: the network
            becomes a one-step surrogate of its mean. "": the clean images are.
    """

    noise: NotNegative = 0.1
    shift: Whole = 0
    flip: Flag = False
    purifier: str = ""


class DenoisingTraining(Objective):
    """|| AE(clamp(x + noise z)) - x ||^2, the mean over pixels; with a purifier T, T(clamp(x + noise z)) in place of x.

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
        s = self.settings = settings_of(self.table_type, table)
        if s.purifier and data.purifier is None:
            raise UserError(f'recipe: objective.purifier = "{s.purifier}" needs the defenses of a published data set')
        self.purifier = data.purifier(s.purifier) if s.purifier and data.purifier else None

    def _loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        z = torch.randn(x.shape, generator=generator, device=x.device)
        noisy = (x + self.settings.noise * z).clamp(0, 1)
        denoised: Tensor = self.network(noisy)
        return (denoised - self._target(x, noisy, generator)).square().mean()

    @torch.no_grad()
    def _target(self, x: Tensor, noisy: Tensor, generator: torch.Generator) -> Tensor:
        if self.purifier is None:
            return x
        seed = int(torch.randint(2**62, (), generator=generator, device=x.device))
        return purify(self.purifier, noisy, Noise.of(seed, len(x), x.device))

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        generator = stream(self.seed, "noise", step, self.device)
        x = augmented(self.data.x[index], generator, shift=self.settings.shift, flip=self.settings.flip)
        return self._loss(x, generator)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the errors on noisy and on clean validation images."""
        x, generator = self.data.x_validation[:1000], stream(self.seed, "validation", 0, self.device)
        noisy = self._loss(x, generator)
        clean = (self.network(x) - self._target(x, x, generator)).square().mean()
        return {"noisy": float(noisy), "clean": float(clean)}
