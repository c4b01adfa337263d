"""Total variation minimisation from random pixels (Guo et al., ICLR 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from defenses.core.noise import Draw
from defenses.filters.base import Filter, image_by_image, within


class TotalVariation(Filter):
    """The image of least total variation that fits a random choice of pixels.

    Minimises TV(u) + 1/lam |m (u - x)|^2 with m the kept pixels, per channel, by scikit-image's solver after Chambolle
    (2004); its split Bregman solver, as in the paper, is wrong by half the range of pixels at two borders. It takes no
    mask, so dropped pixels are filled with the last solution and the problem is solved again: each round lowers the
    masked objective (|u - (m x + (1 - m) u_k)|^2 bounds its second part and equals it at u_k). Dropped pixels start as
    the mean of the kept ones.

    Args:
        keep: probability that a pixel, with all its channels, is kept; 1 makes the filter deterministic.
        lam: weight of the total variation; the paper's release writes weight = 2 / lam.
        rounds: number of solutions; one is enough if every pixel is kept.

    Raises:
        UserError: a parameter outside its range.
    """

    differentiable = False

    def __init__(self, *, keep: float = 0.5, lam: float = 0.03, rounds: int = 10):
        super().__init__()
        within("keep", keep, 0.01, 1)
        within("lam", lam, 1e-6, 1e6)
        within("rounds", rounds, 1, 1000, whole=True)
        self.keep, self.lam, self.rounds = keep, lam, rounds if keep < 1 else 1

    def draws(self, shape: tuple[int, ...]) -> tuple[Draw, ...]:
        """Return a uniform draw for every pixel; none if all are kept."""
        return (Draw(shape[1:], "uniform"),) if self.keep < 1 else ()

    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """Return reconstructed images."""
        masks = (z[0] < self.keep).cpu().numpy() if z else np.ones((len(x), *x.shape[2:]), bool)
        return image_by_image(x, lambda image, row: self._solved(image, masks[row]))

    def _solved(self, image: Tensor, mask: Any) -> Tensor:
        from skimage.restoration import denoise_tv_chambolle

        pixels = image.double().numpy()
        mean = pixels[:, mask].mean() if mask.any() else 0.5
        solution = np.where(mask, pixels, mean)
        for _ in range(self.rounds):
            filled = np.where(mask, pixels, solution)
            solution = denoise_tv_chambolle(  # type: ignore[no-untyped-call]
                filled, weight=self.lam / 2, channel_axis=0
            )
        return torch.from_numpy(solution).clamp(0, 1).to(image.dtype)


def build(network: object, **parameters: Any) -> TotalVariation:
    """Return `TotalVariation`, which has no network."""
    return TotalVariation(**parameters)
