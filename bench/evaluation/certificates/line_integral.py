"""Compare line integrals of gradients with changes of values: rounding leaves gradients that miss the changes."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.evaluation.certificates.differences import Value, gradient_of

MOST_MISSED = 0.3  # between the error of quadrature across kinks, and that of rounding a half of each pixel
_LINES = 2  # beside each image
_NODES = (8, 32)  # of the midpoint rule: the finer one where the coarser one misses too much
_REACH = 0.25  # of the ends, on the way from the image to one of random pixels: steps of rounding lie in between


def line_integral_error(value: Value, x: Tensor, *, seed: int) -> float:
    """Return by how much integrated gradients miss changes of values, as a share: a root mean square over lines.

    The gradient is integrated along lines of random directions beside the images. Where gradients are exact and the
    function is continuous, the integral is the change. Changes count at least as much as is typical for the slope.

    Args:
        value: the function.
        x: images [B, C, H, W] in [0, 1].
        seed: of the lines.
    """
    error = float("inf")
    for nodes in _NODES:
        error = _error(value, x, seed, nodes)
        if error <= MOST_MISSED:
            break
    return error


def _error(value: Value, x: Tensor, seed: int, nodes: int) -> float:
    """Return the error of the midpoint rule with some number of nodes."""
    generator = torch.Generator().manual_seed(seed)
    missed, sizes = [], []
    for _ in range(_LINES):
        start, end = (x + _REACH * (torch.rand(x.shape, generator=generator).to(x) - x) for _ in range(2))
        move = end - start
        length = move.double().flatten(1).norm(dim=1) / move[0].numel() ** 0.5
        integral, slope = (torch.zeros(len(x), dtype=torch.float64, device=x.device) for _ in range(2))
        for k in range(nodes):
            gradient = gradient_of(value, start + (k + 0.5) / nodes * move)
            integral += (gradient * move).flatten(1).sum(1) / nodes
            slope += gradient.flatten(1).norm(dim=1) / nodes
        with torch.no_grad():
            change = (value(end) - value(start)).double()
        missed.append(change - integral)
        sizes.append(torch.maximum(slope * length, change.abs()))
    size = torch.stack(sizes).norm().clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.stack(missed).norm() / size)
