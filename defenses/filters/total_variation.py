"""Total variation minimisation from random pixels (Guo et al., ICLR 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from defenses.core.noise import Draw
from defenses.filters.base import Filter, image_by_image, whole, within


class TotalVariation(Filter):
    """The image of least total variation that agrees with a random choice of pixels.

    Minimises TV(u) + 1/lam |m (u - x)|^2 with m the kept pixels, each channel by itself, by scikit-image's solver
    after Chambolle (2004); its split Bregman solver, the paper's kind, is wrong by half the range of pixels at two
    borders. It takes no mask, so dropped pixels are filled with the last solution and the problem is solved again:
    each such round lowers the masked objective (|u - (m x + (1 - m) u_k)|^2 bounds its second part and touches it at
    u_k). Dropped pixels start as the mean of the kept ones.

    Args:
        keep: chance of a pixel, with all its channels, to be kept; 1 makes the filter deterministic.
        lam: lam; the paper's release writes weight = 2 / lam.
        rounds: how often it is solved; one is enough where every pixel is kept.

    Raises:
        UserError: a parameter outside its range.
    """

    differentiable = False

    def __init__(self, *, keep: float = 0.5, lam: float = 0.03, rounds: int = 10):
        super().__init__()
        within("keep", keep, 0.01, 1)
        within("lam", lam, 1e-6, 1e6)
        whole("rounds", rounds, 1, 1000)
        self.keep, self.lam, self.rounds = keep, lam, rounds if keep < 1 else 1

    def draws(self, shape: tuple[int, ...]) -> tuple[Draw, ...]:
        """One number a pixel, where some are dropped."""
        return (Draw(shape[1:], "uniform"),) if self.keep < 1 else ()

    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """Reconstructed."""
        kept = (z[0] < self.keep).cpu().numpy() if z else np.ones((len(x), *x.shape[2:]), bool)
        return image_by_image(x, lambda image, row: self._solved(image, kept[row]))

    def _solved(self, image: Tensor, kept: Any) -> Tensor:
        from skimage.restoration import denoise_tv_chambolle

        given = image.double().numpy()
        mean = given[:, kept].mean() if kept.any() else 0.5
        found = np.where(kept, given, mean)
        for _ in range(self.rounds):
            filled = np.where(kept, given, found)
            found = denoise_tv_chambolle(filled, weight=self.lam / 2, channel_axis=0)  # type: ignore[no-untyped-call]
        return torch.from_numpy(found).clamp(0, 1).to(image.dtype)


def build(network: object, **own: Any) -> TotalVariation:  # noqa: ARG001
    """See `TotalVariation`; it has no network."""
    return TotalVariation(**own)
