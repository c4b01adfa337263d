"""Steps and projections in Linf, L2 and L1, on images in [0, 1]; sizes are per image, float32 [n]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.spec.threat import Norm

_MOMENTUM = 0.75  # Croce & Hein 2020
_HALVINGS = 40  # of the interval that holds the threshold of the L1 projection: beyond float32


@dataclass(frozen=True, eq=False)
class Ball:
    """Balls of radius eps around images x [n, C, H, W], cut by the box."""

    x: Tensor
    norm: Norm
    eps: float


def project(x: Tensor, moved: Tensor, norm: Norm, eps: float) -> Tensor:
    """Return points projected into the ball around x and the box: the nearest in Linf and L1, on the ray in L2.

    Args:
        x: images [n, C, H, W] in [0, 1].
        moved: points to project, [n, C, H, W].
        norm: "Linf", "L2" or "L1".
        eps: radius.
    """
    if norm == "Linf":
        return torch.max(torch.min(moved, (x + eps).clamp_max(1)), (x - eps).clamp_min(0))
    delta = moved - x
    if norm == "L2":
        length = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
        return (x + delta * _wide((eps / length).clamp_max(1), x)).clamp(0, 1)
    return x + _onto_l1(delta, torch.where(delta > 0, 1 - x, x), eps)


def _onto_l1(delta: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return sign(d) clip(|d| - t, 0, room) with the least t >= 0 that keeps its sum within eps (Croce & Hein 2021)."""
    size = delta.abs()
    low, high = torch.zeros(len(delta), device=delta.device), size.flatten(1).amax(1)
    fits = torch.minimum(size, room).flatten(1).sum(1) <= eps
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        within = torch.minimum((size - _wide(middle, delta)).clamp_min(0), room).flatten(1).sum(1) <= eps
        low, high = torch.where(within, low, middle), torch.where(within, middle, high)
    threshold = _wide(torch.where(fits, torch.zeros_like(high), high), delta)
    return delta.sign() * torch.minimum((size - threshold).clamp_min(0), room)


def direction(gradient: Tensor, norm: Norm, sparsity: Tensor) -> Tensor:
    """Return the steepest direction of size 1 in the norm; in L1, equal on the `sparsity` share of pixels.

    Args:
        gradient: [n, C, H, W].
        norm: "Linf", "L2" or "L1".
        sparsity: share of the pixels that an L1 step changes, [n].
    """
    if norm == "Linf":
        return gradient.sign()
    flat = gradient.flatten(1)
    if norm == "L2":
        return flat.div(flat.norm(dim=1, keepdim=True).clamp_min(1e-30)).view_as(gradient)
    count = (sparsity * flat.shape[1]).long().clamp(1, flat.shape[1])
    least = flat.abs().sort(1, descending=True).values.gather(1, count[:, None] - 1)
    signs = flat.sign() * (flat.abs() >= least)
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)


def step(ball: Ball, at: Tensor, before: Tensor, way: Tensor, size: Tensor, momentum: Tensor) -> Tensor:
    """Return the next iterates of projected ascent, with APGD's momentum where `momentum`; without it in L1.

    Args:
        ball: to stay in.
        at: iterates [n, C, H, W].
        before: the iterates before these, [n, C, H, W].
        way: directions, see `direction`.
        size: step sizes [n].
        momentum: bool [n].
    """
    new = project(ball.x, at + _wide(size, at) * way, ball.norm, ball.eps)
    if ball.norm == "L1":
        return new
    mixed = at + _MOMENTUM * (new - at) + (1 - _MOMENTUM) * (at - before)
    return torch.where(_wide(momentum, at), project(ball.x, mixed, ball.norm, ball.eps), new)


def changed(x: Tensor, at: Tensor) -> Tensor:
    """Return the share of pixels that differ, [n]."""
    return ((at - x).abs() > 1e-6).flatten(1).float().mean(1)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
