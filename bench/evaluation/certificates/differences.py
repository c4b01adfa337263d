"""Compare gradients with central differences in float64, at points beside the images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bench.evaluation.certificates.certificate import NoGradient

LIMIT = 1e-6  # most relative error of gradients in float64

Value = Callable[[Tensor], Tensor]  # of images [B, C, H, W], [B]

_WIDTHS = (1e-6, 1e-8, 1e-7, 1e-5, 1e-9, 1e-4)  # of differences: the best counts, between rounding and curvature
_JITTER = 1e-3  # pixels of equal value tie in max pooling and medians, and at clamps
_CLEAR = 10  # a fault is an error that is so many times larger than the differences among differences
_ROUNDING = 64 * torch.finfo(torch.float64).eps  # relative error of a value


@dataclass(frozen=True)
class Errors:
    """Relative errors of directional derivatives, [points], and where they can't be judged.

    Args:
        values: the errors.
        left_out: True at a kink: the one-sided differences disagree so much that they can't tell an error of this size.
    """

    values: Tensor
    left_out: Tensor

    def over(self, statistic: Callable[[Tensor], Tensor]) -> float:
        """Return a statistic of the errors that are not left out; 0 if all are."""
        measured = self.values[~self.left_out]
        return float(statistic(measured)) if len(measured) else 0.0


def jittered(x: Tensor, seed: int) -> Tensor:
    """Return images whose pixels are moved by up to 1e-3 each, float64 in [0, 1].

    Args:
        x: images [B, C, H, W] in [0, 1].
        seed: of the moves.
    """
    size = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.double() + _JITTER * torch.where(x < 0.5, 1.0, -1.0) * size.to(x.device)


def gradient_of(value: Value, x: Tensor) -> Tensor:
    """Return the gradient of the sum of values, float64 [B, C, H, W], computed in the type of `x`.

    Args:
        value: the function.
        x: images [B, C, H, W].

    Raises:
        FloatingPointError: it is not finite.
        NoGradient: the values have no graph to the images.
    """
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        total = value(leaf).sum()
    if not total.requires_grad:
        raise NoGradient
    gradient = torch.autograd.grad(total, leaf, allow_unused=True, materialize_grads=True)[0]
    if not gradient.isfinite().all():
        raise FloatingPointError("the gradient is not finite on clean images")
    return gradient.double()


def against_differences(value: Value, x: Tensor, *, seed: int, directions: int) -> Errors:
    """Return the errors of derivatives at points beside the images, one for each image and direction.

    Args:
        value: the function, in float64.
        x: images [B, C, H, W] in [0, 1].
        seed: of points and directions.
        directions: number of directions, each at points of its own.
    """
    errors = []
    for i in range(directions):
        generator = torch.Generator().manual_seed(seed + 1 + i)
        along = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
        errors.append(_at_points(value, jittered(x, seed + 1 + i), along))
    return Errors(torch.cat([e.values for e in errors]), torch.cat([e.left_out for e in errors]))


def _at_points(value: Value, x: Tensor, along: Tensor) -> Errors:
    """Return the errors of the derivatives at `x` [B, C, H, W] in the directions `along`."""
    gradient = gradient_of(value, x)
    slope = (gradient * along).flatten(1).sum(1)
    scale = gradient.flatten(1).norm(dim=1) * along.flatten(1).norm(dim=1) / along[0].numel() ** 0.5
    scale = scale.clamp_min(torch.finfo(torch.float64).tiny)
    sides: dict[float, Tensor] = {}  # the two one-sided differences [2, B] by width
    best = torch.full_like(slope, float("inf"))
    with torch.no_grad():
        middle = value(x)
        for h in _WIDTHS:
            sides[h] = torch.stack([(value(x + h * along) - middle) / h, (middle - value(x - h * along)) / h])
            best = torch.fmin(best, (sides[h].mean(0) - slope).abs())
            if (best <= LIMIT * scale).all():
                break
    is_wrong = best > LIMIT * scale
    return Errors(best / scale, is_wrong & ~_agree_elsewhere(sides, slope, middle) if is_wrong.any() else is_wrong)


def _agree_elsewhere(sides: dict[float, Tensor], slope: Tensor, middle: Tensor) -> Tensor:
    """Return True, [B], where differences agree with each other, but not with the slope [B].

    The one-sided differences of two widths are compared, those that agree best. Between kinks they agree but for
    curvature and rounding; across many kinks two of them may agree by chance.
    """
    widths = sorted(sides)
    spreads, errors = [], []
    for pair in pairwise(widths):
        four = torch.cat([sides[h] for h in pair])
        spread = four.amax(0) - four.amin(0) + _ROUNDING * middle.abs() / pair[0]
        spreads.append(spread.nan_to_num(torch.inf))  # NaN: beyond the pixels that the function takes
        errors.append((four.mean(0) - slope).abs())
    least, at = torch.stack(spreads).min(0)
    return torch.stack(errors).gather(0, at[None])[0] > _CLEAR * least
