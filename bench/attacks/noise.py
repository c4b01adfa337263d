"""Uniform noise in a ball, keyed by image: the result for an image depends on no other image of the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.spec.threat import ThreatModel
from defenses.core.noise import Draw, Noise

_SIZE, _SIGN, _RADIUS = 0, 1, 2  # ids of noise streams; L0 draws its pixels from the last


def uniform_in_ball(x: Tensor, threat: ThreatModel, noise: Noise) -> Tensor:
    """Return random images in the ball around x.

    Linf: uniform in the ball cut by the box. L2 and L1: uniform in the ball; then a coordinate outside the box is
    reflected about x, and clamped where it is outside again. Where all pixels are 0 or 1 the result is uniform in the
    ball cut by the box; elsewhere it is not. L0: eps random pixels take uniform values in all channels.

    Args:
        x: images, float32 [B, C, H, W] in [0, 1].
        threat: norm and eps.
        noise: B streams.

    Returns:
        float32 [B, C, H, W], in the box and in the ball.
    """
    eps, shape = float(threat.eps), tuple(x.shape[1:])
    u = noise.child(_SIZE).draw(Draw(shape, "uniform"))
    if threat.norm == "Linf":
        low, high = (x - eps).clamp_min_(0), (x + eps).clamp_max_(1)
        return high.sub_(low).mul_(u).add_(low)  # in place: images may be large
    if threat.norm == "L0":
        pixels = noise.child(_RADIUS).draw(Draw((x[0, 0].numel(),), "uniform"))
        chosen = torch.zeros_like(pixels, dtype=torch.bool)
        chosen.scatter_(1, pixels.argsort(1)[:, : int(threat.eps)], True)
        return torch.where(chosen.view(len(x), 1, *shape[1:]), u, x)
    delta = eps * (_in_l2_ball(noise, shape) if threat.norm == "L2" else _in_l1_ball(noise, u))
    moved = x + delta
    return torch.where((moved < 0) | (moved > 1), x - delta, moved).clamp(0, 1)


def _in_l2_ball(noise: Noise, shape: tuple[int, ...]) -> Tensor:
    direction = noise.child(_SIGN).draw(Draw(shape))
    radius = noise.child(_RADIUS).draw(Draw((1, 1, 1), "uniform"))
    length = direction.square().sum((1, 2, 3), keepdim=True).sqrt()
    return direction / length * radius.pow(1 / direction[0].numel())


def _in_l1_ball(noise: Noise, u: Tensor) -> Tensor:
    """Return points uniform in the L1 ball: exponentials over their sum and one more (Devroye 1986, chapter 5)."""
    sizes = -torch.log1p(-u)
    spare = -torch.log1p(-noise.child(_RADIUS).draw(Draw((1, 1, 1), "uniform")))
    total = sizes.sum((1, 2, 3), keepdim=True) + spare
    return noise.child(_SIGN).draw(Draw(tuple(u.shape[1:]), "rademacher")) * sizes / total
