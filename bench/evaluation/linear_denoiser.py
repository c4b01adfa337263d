"""The best linear denoiser of a data set: what a trained score network must beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from defenses.data.dataset import Dataset

_IMAGES = 20_000  # of the covariance
MOST_DIMENSIONS = 4096  # of an image; the covariance and its eigenvectors grow with the square


@dataclass(frozen=True)
class LinearDenoiser:
    """The posterior mean of normal data with the mean and covariance of a data set.

    E[z | y = x + sigma z] = sigma (C + sigma^2 I)^-1 (y - mean), the least squares among affine functions of y.

    Args:
        mean: of the images, [D].
        variances: eigenvalues of their covariance C, [D].
        axes: its eigenvectors, columns [D, D].
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor

    @classmethod
    def of(cls, data: Dataset) -> LinearDenoiser | None:
        """Return the denoiser of the first images of a data set, at most `_IMAGES`; None above `MOST_DIMENSIONS`."""
        if math.prod(data.shape) > MOST_DIMENSIONS:
            return None
        flat = data.images(range(min(len(data), _IMAGES))).flatten(1)
        mean = flat.mean(0)
        centred = flat - mean
        variances, axes = torch.linalg.eigh((centred.T @ centred / len(flat)).double())
        return cls(mean, variances.clamp_min(0).float(), axes.float())

    def predicted_noise(self, y: Tensor, sigma: float) -> Tensor:
        """Return E[z | y], of the shape of y.

        Args:
            y: noisy images [B, C, H, W].
            sigma: standard deviation of their noise.
        """
        along = (y.flatten(1) - self.mean) @ self.axes
        return ((along * (sigma / (self.variances + sigma**2))) @ self.axes.T).view_as(y)
