"""Common corruptions of images, by kornia, scipy, Pillow and torch; severities: `sources.corrupted`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.core.noise import Draw, Noise
from defenses.data.images import jpeg_round_trip

_ALONE = frozenset({"gaussian_blur", "motion_blur"})  # a convolution may round otherwise in another batch
_MAX_ANGLE = 45  # degrees, of motion blur
_COARSE = 0.4  # share of the side that pixelation keeps; shares near 1 would shift small images instead


def corrupt(kind: str, x: Tensor, noise: Noise, level: float) -> Tensor:
    """Return corrupted images; each has the same bits, whatever the images beside it.

    Args:
        kind: a key of `defenses.data.sources.corrupted.CORRUPTIONS`.
        x: images, float32 [N, C, H, W] in [0, 1].
        noise: N streams.
        level: strength, in the kind's unit.

    Returns:
        Images of the same shape, in [0, 1].
    """
    size = 1 if kind in _ALONE else max(1, len(x))
    batches = zip(x.split(size), noise.keys.split(size), strict=True)
    return torch.cat([_KINDS[kind](a, Noise(k), level).clamp(0, 1) for a, k in batches])


def _gaussian(x: Tensor, noise: Noise, level: float) -> Tensor:
    return x + level * noise.draw(Draw(tuple(x.shape[1:])))


def _shot(x: Tensor, noise: Noise, level: float) -> Tensor:
    """Return Poisson counts by their quantiles, so that a stronger level has the same noise."""
    from scipy.stats import poisson

    uniform = noise.draw(Draw(tuple(x.shape[1:]), "uniform")).double().numpy()
    counts = poisson.ppf(uniform, x.double().numpy() * level)
    return torch.from_numpy(counts / level).clamp_min(0).to(x.dtype)  # the quantile of 0 is -1


def _impulse(x: Tensor, noise: Noise, level: float) -> Tensor:
    hit, white = (noise.child(i).draw(Draw(tuple(x.shape[1:]), "uniform")) for i in (0, 1))
    return torch.where(hit < level, (white < 0.5).to(x.dtype), x)


def _blur(x: Tensor, noise: Noise, level: float) -> Tensor:
    from kornia.filters import gaussian_blur2d

    side = min(x.shape[2:])
    sigma = level * side
    width = min(2 * max(1, round(3 * sigma)) + 1, side - 1 + side % 2)
    blurred: Tensor = gaussian_blur2d(x, (width, width), (sigma, sigma), border_type="replicate")
    return blurred


def _motion(x: Tensor, noise: Noise, level: float) -> Tensor:
    from kornia.filters import motion_blur

    angle = (2 * noise.draw(Draw((1,), "uniform"))[:, 0] - 1) * _MAX_ANGLE
    width = max(3, 2 * round(min(x.shape[2:]) / 6) + 1)
    moved = motion_blur(x, width, angle, torch.zeros(len(x)), border_type="replicate", mode="bilinear")
    return torch.lerp(x, moved, level)


def _brightness(x: Tensor, noise: Noise, level: float) -> Tensor:
    return x + level


def _contrast(x: Tensor, noise: Noise, level: float) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return mean + level * (x - mean)


def _pixelate(x: Tensor, noise: Noise, level: float) -> Tensor:
    height, width = x.shape[2:]
    small = F.interpolate(x, (max(1, round(_COARSE * height)), max(1, round(_COARSE * width))), mode="area")
    return torch.lerp(x, F.interpolate(small, (height, width), mode="nearest"), level)


def _jpeg(x: Tensor, noise: Noise, level: float) -> Tensor:
    return torch.stack([jpeg_round_trip(image, int(level)) for image in x])


_KINDS: dict[str, Callable[[Tensor, Noise, float], Tensor]] = {
    "gaussian_noise": _gaussian,
    "shot_noise": _shot,
    "impulse_noise": _impulse,
    "gaussian_blur": _blur,
    "motion_blur": _motion,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg,
}
