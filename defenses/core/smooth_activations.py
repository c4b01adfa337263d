"""Gradients of piecewise linear energies at a finite scale: smoothed activations, and central differences.

The gradient of an energy of linear layers and (Leaky)ReLU is piecewise constant: its Hessian is 0 almost everywhere,
and the Jacobian of a Langevin step is the identity. Both methods give the slope at a finite distance instead.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from defenses.utils.modules import replace_modules


class SmoothLeakyReLU(nn.Module):
    """a x + (1 - a) w softplus(x / w): LeakyReLU of slope a for w -> 0, off by at most (1 - a) w log 2, at 0.

    Args:
        negative_slope: a; 0 is ReLU.
        width: w, in the units of the input; the slope goes from a to 1 within a few w of 0.
    """

    def __init__(self, negative_slope: float, width: float):
        super().__init__()
        self.negative_slope, self.width = negative_slope, width

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        soft = -self.width * nn.functional.logsigmoid(-x / self.width)  # torch's softplus is linear above 20
        return self.negative_slope * x + (1 - self.negative_slope) * soft

    def slope(self, x: Tensor) -> Tensor:
        """Return the derivative at x, itself differentiable."""
        return self.negative_slope + (1 - self.negative_slope) * torch.sigmoid(x / self.width)


def smooth(network: nn.Module, width: float) -> nn.Module:
    """Return a copy of a network that shares its weights, with smooth activations in place of ReLU and LeakyReLU.

    Args:
        network: only activations that are modules are replaced.
        width: see `SmoothLeakyReLU`.

    Returns:
        The copy; the network itself if it has no such activation.
    """

    def smoothed(module: nn.Module) -> nn.Module | None:
        if isinstance(module, nn.ReLU):
            return SmoothLeakyReLU(0.0, width)
        return SmoothLeakyReLU(module.negative_slope, width) if isinstance(module, nn.LeakyReLU) else None

    return replace_modules(network, smoothed)


class Differenced(nn.Module):
    """A gradient field with a Jacobian by central differences at a finite distance.

    The Jacobian H of grad f is symmetric, so v^T H = H v ~ (grad f(u + h v/|v|) - grad f(u - h v/|v|)) |v| / 2h,
    with h = scale sqrt(D) for images of D values. A backward pass calls the field twice; parameters get no gradient.

    Args:
        field: images [B, C, H, W] -> grad f, the same shape.
        scale: root mean square of the displacement of a value, in the units of the images.
    """

    def __init__(self, field: nn.Module, scale: float):
        super().__init__()
        self.field, self.scale = field, scale

    def forward(self, u: Tensor) -> Tensor:
        """Return the field at u, unchanged."""
        out: Tensor = _Difference.apply(u, self.field, self.scale * math.sqrt(u[0].numel()))
        return out


class _Difference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, field: nn.Module, h: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.field, ctx.h = field, h
        value: Tensor = field(u)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (u,), v = ctx.saved_tensors, grads[0]
        length = v.flatten(1).norm(dim=1).clamp_min(torch.finfo(v.dtype).tiny).view(-1, *[1] * (v.dim() - 1))
        probe = ctx.h * (v / length)
        change = ctx.field(u + probe) - ctx.field(u - probe)
        return change * (length / (2 * ctx.h)), None, None
