"""Adversarial weight perturbation (Wu et al. 2020, arXiv 2004.05884)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def preserved_buffers(network: nn.Module) -> Iterator[None]:
    """Restore the buffers (statistics of batch norm) at the end of the context."""
    before = [b.clone() for b in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for b, value in zip(network.buffers(), before, strict=True):
                b.copy_(value)


class WeightPerturbation:
    """A move of weights up a gradient, by a share of the norm of each layer: w + gamma ||w|| g / ||g||.

    The reference moves a copy by one SGD step and scales the difference; the step size cancels, so the gradient itself
    is scaled here. As there, biases and batch norm (tensors of one dimension) are not moved.

    Args:
        network: perturbed in place.
        gamma: size, relative to a layer's norm.
    """

    def __init__(self, network: nn.Module, gamma: float):
        self.gamma = gamma
        self.weights = [p for p in network.parameters() if p.ndim > 1 and p.requires_grad]
        self._moved: list[Tensor] = []

    @torch.no_grad()
    def away(self, loss: Tensor) -> None:
        """Move the weights up the gradient of a loss."""
        self._moved = []
        for p, g in zip(self.weights, torch.autograd.grad(loss, self.weights), strict=True):
            self._moved.append(self.gamma * p.norm() / (g.norm() + 1e-20) * g)
            p.add_(self._moved[-1])

    @torch.no_grad()
    def back(self) -> None:
        """Undo the last move; do nothing if there was none."""
        for p, moved in zip(self.weights, self._moved, strict=False):
            p.sub_(moved)
        self._moved = []
