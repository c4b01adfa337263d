"""MagNet's reformer (Meng & Chen, CCS 2017, arXiv 1705.09064): an autoencoder of clean images as a purifier."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from defenses.filters import Filter


class Reformer(Filter):
    """x -> AE(x), differentiable and without noise.

    Args:
        autoencoder: images [B, C, H, W] in [0, 1] -> the same.
    """

    def __init__(self, autoencoder: nn.Module):
        super().__init__()
        self.autoencoder = autoencoder

    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:  # noqa: ARG002
        """Reconstructed."""
        image: Tensor = self.autoencoder(x)
        return image


def build(network: Callable[[str], nn.Module]) -> Reformer:
    """See `Reformer`."""
    return Reformer(network("magnet"))
