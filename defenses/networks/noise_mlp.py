"""A noise predictor with time input for images of a few pixels: the network of the score SDEs on digits."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from defenses.networks.sde import sde_of
from defenses.utils.errors import UserError


class NoiseMLP(nn.Module):
    """Linear layers with SiLU from noisy pixels and the time to the noise.

    Noisy images are scaled to about unit variance; the time is encoded by sines and cosines.

    Args:
        in_channels: C.
        size: H = W.
        hidden: width.
        depth: number of hidden layers.
        frequencies: of the sines and cosines, 2^0 to 2^(n - 1) half turns over [0, 1].
        sde: name of the SDE of its training, see `defenses.networks.sde.sde_of`.

    Raises:
        UserError: `depth` or `frequencies` below 1.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        size: int = 8,
        hidden: int = 256,
        depth: int = 3,
        frequencies: int = 8,
        sde: str = "vp",
    ):
        super().__init__()
        if depth < 1 or frequencies < 1:
            raise UserError(f"depth is {depth} and frequencies {frequencies}; both must be at least 1")
        self.sde = sde_of(sde)
        self.frequencies = frequencies
        pixels = in_channels * size * size
        wide = [pixels + 2 * frequencies, *[hidden] * depth]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(wide):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Linear(hidden, pixels))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map noisy data of the SDE [B, C, H, W] and times [B] in [0, 1] to the noise [B, C, H, W]."""
        scale = torch.sqrt(self.sde.mean(t) ** 2 + self.sde.std(t) ** 2)
        turns = math.pi * 2.0 ** torch.arange(self.frequencies, device=t.device, dtype=t.dtype)
        angle = t[:, None] * turns
        features = [x.flatten(1) / scale[:, None], angle.sin(), angle.cos()]
        return self.body(torch.cat(features, 1)).view_as(x)  # type: ignore[no-any-return]
