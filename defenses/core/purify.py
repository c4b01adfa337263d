"""The loops over the steps of a purifier: without a graph, with the whole graph, or with a graph of bounded size."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.core.noise import Noise
from defenses.core.purifier import Purifier
from defenses.core.steps import advance, run_steps, start, step_noise


def purify(purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    """Run a purifier.

    With grad enabled and `x` requiring grad, the result carries the exact gradient through every step, in bounded
    memory (see `defenses.core.replay`). Otherwise no graph is kept, and images that are done leave the batch.

    Args:
        purifier: the purifier.
        x: images, float32 [B, C, H, W] in [0, 1].
        noise: B streams.

    Returns:
        Purified images [B, C, H, W].
    """
    if torch.is_grad_enabled() and x.requires_grad:
        from defenses.core.replay import extent, replayed

        held = extent(purifier, x, noise)
        if held.last >= purifier.steps:
            return unrolled(purifier, x, noise)
        return replayed(purifier, x, noise, length=held.length, last=held.last)
    with torch.no_grad():
        state, ctx = start(purifier, x, noise)
        return purifier.finish(run_steps(purifier, state, ctx, step_noise(purifier, x, noise)), ctx)


def unrolled(purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    """As `purify`, with the whole graph in memory: plain autograd, differentiable any number of times."""
    state, ctx = start(purifier, x, noise)
    state = advance(purifier, state, ctx, range(purifier.steps), step_noise(purifier, x, noise))
    return purifier.finish(state, ctx)
