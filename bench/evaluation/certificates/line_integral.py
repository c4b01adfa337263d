"""Compare line integrals of gradients with changes of values: rounding leaves gradients that miss the changes."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.evaluation.certificates.differences import Value, gradient_of

MOST_MISSED = 0.25  # most relative error; quadrature across kinks leaves some hundredths, rounding alone leaves 1
_NODES = 16  # of the midpoint rule


def line_integral_errors(value: Value, x: Tensor, *, seed: int) -> Tensor:
    """Return by how much integrated gradients miss the change of values, [B].

    The gradient is integrated along the lines from the images to images of random pixels. Where gradients are exact and
    the function is continuous, the integral is the change. Errors are relative to the change, or to the typical slope
    along such a line where that is larger.

    Args:
        value: the function.
        x: images [B, C, H, W] in [0, 1].
        seed: of the random images.
    """
    generator = torch.Generator().manual_seed(seed)
    move = torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x) - x
    length = move.double().flatten(1).norm(dim=1) / move[0].numel() ** 0.5
    integral, size = (torch.zeros(len(x), dtype=torch.float64, device=x.device) for _ in range(2))
    for k in range(_NODES):
        gradient = gradient_of(value, x + (k + 0.5) / _NODES * move)
        integral += (gradient * move).flatten(1).sum(1) / _NODES
        size += gradient.flatten(1).norm(dim=1) * length / _NODES
    with torch.no_grad():
        change = (value(x + move) - value(x)).double()
    return (change - integral).abs() / torch.maximum(size, change.abs()).clamp_min(torch.finfo(torch.float64).tiny)
