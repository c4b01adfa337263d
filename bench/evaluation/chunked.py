"""Logits of a batch piece by piece, with one piece's graph in memory at a time, for twice the work.

Used when memory has run out: an ordinary graph holds all pieces until the backward pass, so that smaller pieces would
free nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.evaluation.batching import BatchLimit
from defenses.core.noise import Noise

Call = Callable[[Tensor, Noise], Tensor]  # images [B, C, H, W] and B streams -> logits [B, K]


def piecewise(call: Call, x: Tensor, noise: Noise, rows: BatchLimit, *, redivide: bool = True) -> Tensor:
    """Return the logits of a batch, computed in pieces of at most `rows.limit`.

    Works under `torch.autograd.grad` and `.backward()`, with or without `retain_graph`; once differentiable.

    Args:
        call: the defense.
        x: images, float32 [B, C, H, W].
        noise: B streams.
        rows: limit of the pieces; halved when memory runs out again.
        redivide: the backward pass may divide further; False where noise depends on the division.

    Returns:
        Logits [B, K].
    """
    if torch.is_grad_enabled() and x.requires_grad:
        logits: Tensor = _Piecewise.apply(x, noise.keys, call, rows, redivide)
        return logits
    return torch.cat(rows.in_pieces(lambda s: call(x[s], Noise(noise.keys[s])), [slice(0, len(x))])[0])


def _with_graph(call: Call, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return (logits with a separate graph, the leaf it begins at)."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return call(leaf, Noise(keys)), leaf


class _Piecewise(torch.autograd.Function):
    """Forward pass with one piece's graph at a time, and backward pass that computes each piece again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, call: Call, rows: BatchLimit, redivide: bool) -> Tensor:
        # With gradients enabled: without them, a defense may compute in another way.
        logits, pieces = rows.in_pieces(lambda s: _with_graph(call, x[s], keys[s])[0].detach(), [slice(0, len(x))])
        ctx.save_for_backward(x, keys)
        ctx.call, ctx.rows, ctx.pieces, ctx.redivide = call, rows, pieces, redivide
        return torch.cat(logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, keys = ctx.saved_tensors

        def back(piece: slice) -> Tensor:
            logits, leaf = _with_graph(ctx.call, x[piece], keys[piece])
            if not logits.requires_grad:
                return torch.zeros_like(leaf)
            return torch.autograd.grad(logits, leaf, grads[0][piece], allow_unused=True, materialize_grads=True)[0]

        parts, _ = ctx.rows.in_pieces(back, ctx.pieces, divide=ctx.redivide)
        return torch.cat(parts), None, None, None, None
