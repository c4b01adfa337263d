"""Run a purifier: without a graph, with the whole graph, or with a graph of bounded size."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.core.noise import Noise
from defenses.core.purifier import Purifier
from defenses.core.replay import extent, replayed
from defenses.core.steps import advance, run_steps, start, step_noise


def purify(purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    """Return purified images.

    With grad enabled and `x` requiring grad, the result has the exact gradient through every step, in bounded memory
    (see `defenses.core.replay`). Otherwise no graph is kept, and images that are done leave the batch.

    Args:
        purifier: the purifier.
        x: images, float32 [B, C, H, W] in [0, 1].
        noise: B streams.

    Returns:
        Purified images [B, C, H, W].
    """
    if torch.is_grad_enabled() and x.requires_grad:
        graph = extent(purifier, x, noise)
        if graph.last >= purifier.steps:
            return unrolled(purifier, x, noise)
        return replayed(purifier, x, noise, length=graph.length, last=graph.last)
    with torch.no_grad():
        state, ctx = start(purifier, x, noise)
        return purifier.finish(run_steps(purifier, state, ctx, step_noise(purifier, x, noise)), ctx)


def unrolled(purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    """Return purified images as `purify` does, with the whole graph: differentiable any number of times.

    Args:
        purifier: the purifier.
        x: images, float32 [B, C, H, W] in [0, 1].
        noise: B streams.

    Returns:
        Purified images [B, C, H, W].
    """
    state, ctx = start(purifier, x, noise)
    state = advance(purifier, state, ctx, range(purifier.steps), step_noise(purifier, x, noise))
    return purifier.finish(state, ctx)
