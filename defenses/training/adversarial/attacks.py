"""Inner attacks of adversarial training: projected sign ascent in the Linf ball, and its one-step form."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def ascend(
    loss: Callable[[Tensor], Tensor], start: Tensor, x: Tensor, *, eps: float, step: float, iterations: int
) -> Tensor:
    """Return the last iterate of sign ascent on a loss, projected onto the ball around x and the box [0, 1].

    Args:
        loss: images -> scalar; a sum over images, so that each has its own gradient.
        start: first iterate [B, C, H, W].
        x: centre of the ball, in [0, 1].
        eps: radius, on pixels in [0, 1].
        step: step size, likewise.
        iterations: number of steps, one forward and one backward pass each.
    """
    at, low, high = start, (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    for _ in range(iterations):
        with torch.enable_grad():
            at = at.detach().requires_grad_()  # never that of the caller
            gradient = torch.autograd.grad(loss(at), at)[0]
        at = torch.clamp(at.detach() + step * gradient.sign(), low, high)
    return at.detach()


def uniform_start(x: Tensor, generator: torch.Generator, eps: float) -> Tensor:
    """Return uniform points in the ball, clipped to [0, 1]."""
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return (x + eps * (2 * noise - 1)).clamp(0, 1)


def summed_cross_entropy(network: nn.Module, y: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function from images to the cross-entropy of a network, summed over images."""
    return lambda at: F.cross_entropy(network(at), y, reduction="sum")


def pgd(
    network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, *, eps: float, step: float, iterations: int
) -> Tensor:
    """Return the last iterate of Linf PGD on the cross-entropy from a uniform start (Madry et al. 2018).

    Args:
        network: classifier; its mode is not changed.
        x: images [B, C, H, W] in [0, 1].
        y: labels [B].
        generator: of the start.
        eps: radius.
        step: step size.
        iterations: number of steps.
    """
    start = uniform_start(x, generator, eps)
    return ascend(summed_cross_entropy(network, y), start, x, eps=eps, step=step, iterations=iterations)


def fgsm(network: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    """Return x + eps sign(gradient of the cross-entropy), clipped to [0, 1] (Goodfellow et al. 2015).

    Args:
        network: classifier; its mode is not changed.
        x: images [B, C, H, W] in [0, 1].
        y: labels [B].
        eps: radius.
    """
    return ascend(summed_cross_entropy(network, y), x, x, eps=eps, step=eps, iterations=1)
