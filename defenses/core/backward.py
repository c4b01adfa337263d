"""Purified images whose gradient is that of a mode (`defenses.core.gradient_modes.MODES`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from defenses.core.gradient_modes import JOINT, NUMBERS, parsed, variant
from defenses.core.noise import Noise
from defenses.core.purifier import Purifier, with_gradient
from defenses.core.purify import purify
from defenses.core.replay import replayed
from defenses.core.steps import run_steps, start, step_noise

Network = Callable[[Tensor], Tensor]  # images [B, C, H, W] in [0, 1] -> the same


def purified(
    purifier: Purifier, x: Tensor, noise: Noise, mode: str, *, runs: int = 1, autoencoder: Network | None = None
) -> Tensor:
    """Purified copies of images, under a mode that the purifier has.

    The values are those of `purify` without a graph, to the last bit; but "surrogate" is another purifier.

    In the joint modes the gradient that reaches x is 1/2 [sign(g) + sign(d)], with g what bpda gives over all runs,
    and d the score at x ("joint-score") or the sum over runs of purify(x) - x ("joint-full"). It is made for attacks
    that ascend a loss by signs: they are drawn towards where the purifier goes. One that descends (towards a target)
    flees from there, and the length of the gradient means nothing. Every copy of an expectation over transformation
    has signs of its own, and these vote, as in the release of ADP; for the signs of a mean, ask for more runs.

    Args:
        purifier: the purifier.
        x: images [B, C, H, W] in [0, 1], requiring grad.
        noise: B * runs streams, those of an image side by side.
        mode: all but "blind", which has no purifier.
        runs: copies of each image.
        autoencoder: for "bpda-autoencoder", in place of the purifier's own.

    Returns:
        Images [B * runs, C, H, W].
    """
    if mode in JOINT:
        return _joint(purifier, x, noise, runs, mode)
    copies = repeated(x, runs)
    if mode == "exact":
        return purify(purifier, copies, noise)
    if mode == "bpda-filters":
        return purify(_given(purifier.bridged()), copies, noise)
    if parsed(mode)[0] in NUMBERS:
        other = variant(purifier, mode)
        if mode.startswith("surrogate"):
            return purify(other, copies, noise)
        # One step a segment, so that every step is made from the state that the purifier itself has reached.
        return replayed(purifier, copies, noise, backward=other)
    if mode == "forward-noise":
        return _forward_noise(purifier, copies, noise)
    if mode == "bpda-denoiser":
        way = _denoised(purifier, copies, noise)
    else:
        way = copies if mode == "bpda" else _given(autoencoder or purifier.backward_network())(copies)
    return with_gradient(purify(purifier, copies.detach(), noise), way)


def repeated(x: Tensor, runs: int) -> Tensor:
    """`runs` copies of every image, side by side."""
    return x.repeat_interleave(runs, 0) if runs > 1 else x


def _given(hook: Any) -> Any:
    assert hook is not None, "a mode that the purifier lacks has been let through"
    return hook


def _denoised(purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    state, ctx = start(purifier, x, noise)
    return purifier.finish(_given(purifier.one_step())(state, ctx), ctx)


def _forward_noise(purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    straight = purifier.straightened()
    state, ctx = start(straight, x, noise)
    return straight.finish(run_steps(straight, state, ctx, step_noise(straight, x, noise)), ctx)


def _joint(purifier: Purifier, x: Tensor, noise: Noise, runs: int, mode: str) -> Tensor:
    image = x.detach()
    value = purify(purifier, repeated(image, runs), noise)
    with torch.no_grad():
        if mode == "joint-score":
            towards = _given(purifier.score_direction())(image)
        else:
            towards = value.view(len(x), runs, *x.shape[1:]).sum(1) - runs * image
    joined: Tensor = _Joint.apply(x, towards.sign())
    return with_gradient(value, repeated(joined, runs))


class _Joint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, signs: Tensor) -> Tensor:
        ctx.save_for_backward(signs)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = grads
        # The sign of NaN would hide a gradient that is none.
        signs = torch.where(gradient.isfinite(), gradient.sign(), gradient)
        return (signs + ctx.saved_tensors[0]) / 2, None
