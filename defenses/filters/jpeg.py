"""JPEG compression (Dziugaite et al. 2016; Guo et al., ICLR 2018; Das et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from defenses.data.images import jpeg_round_trip
from defenses.filters.base import Filter, image_by_image, within
from defenses.utils.errors import UserError


class Jpeg(Filter):
    """Compression by libjpeg, through Pillow.

    Under "bpda-autoencoder", kornia's differentiable codec (Shin and Song 2017; Reich et al. 2024) takes its place
    backward: a stronger attack than the identity if compression changes the image much.

    Args:
        quality: 1 to 100.

    Raises:
        UserError: `quality` is no whole number from 1 to 100.
    """

    differentiable = False

    def __init__(self, *, quality: int = 75):
        super().__init__()
        within("quality", quality, 1, 100, whole=True)
        self.quality = quality

    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """Return compressed images; pixels are rounded to bytes first.

        Raises:
            UserError: images of neither one nor three channels.
        """
        _check_channels(x)
        return image_by_image(x, lambda image, _: jpeg_round_trip(image, self.quality))

    def backward_network(self) -> Callable[[Tensor], Tensor]:
        """Return the differentiable codec; grey images are coded as three equal channels."""

        def network(x: Tensor) -> Tensor:
            from kornia.enhance import jpeg_codec_differentiable

            coded: Tensor = jpeg_codec_differentiable(
                x.expand(-1, 3, -1, -1), torch.tensor([float(self.quality)], device=x.device, dtype=x.dtype)
            )
            return coded if x.shape[1] == 3 else coded.mean(1, keepdim=True)

        return network


def _check_channels(x: Tensor) -> None:
    if x.shape[1] not in (1, 3):
        raise UserError(f"jpeg takes images of 1 or 3 channels, not {x.shape[1]}; leave it out for this data set")


def build(network: object, **parameters: Any) -> Jpeg:
    """Return `Jpeg`, which has no network."""
    return Jpeg(**parameters)
