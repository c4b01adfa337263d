"""Purify images with the gradient of a mode (`defenses.core.gradient_modes.MODES`)."""

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
    """Return purified copies of images, with the gradient of a mode of the purifier.

    The values equal those of `purify` without a graph bit for bit, except under "surrogate": another purifier runs.

    In the joint modes the gradient at x is 1/2 [sign(g) + sign(d)], with g the bpda gradient summed over all runs, and
    d the score at x ("joint-score") or the sum over runs of purify(x) - x ("joint-full"). It suits attacks that ascend
    a loss by signs: they move towards the purified image. An attack that descends (towards a target) moves away from
    it, and the length of the gradient means nothing. The signs are taken for each copy of an expectation over
    transformation, and summed, as in the release of ADP; for the signs of a mean, use more runs.

    Args:
        purifier: the purifier.
        x: images [B, C, H, W] in [0, 1], requiring grad.
        noise: B * runs streams, those of an image side by side.
        mode: any mode of the purifier but "blind", which has no purifier.
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
        return purify(_required(purifier.bridged()), copies, noise)
    if parsed(mode)[0] in NUMBERS:
        other = variant(purifier, mode)
        if mode.startswith("surrogate"):
            return purify(other, copies, noise)
        # One step a segment: every step starts from the purifier's own state.
        return replayed(purifier, copies, noise, backward=other)
    if mode == "forward-noise":
        return _forward_noise(purifier, copies, noise)
    if mode == "bpda-denoiser":
        path = _denoised_once(purifier, copies, noise)
    else:
        path = copies if mode == "bpda" else _required(autoencoder or purifier.backward_network())(copies)
    return with_gradient(purify(purifier, copies.detach(), noise), path)


def repeated(x: Tensor, runs: int) -> Tensor:
    """Repeat every image.

    Args:
        x: images [B, C, H, W].
        runs: copies of each image.

    Returns:
        Images [B * runs, C, H, W], the copies of an image side by side.
    """
    return x.repeat_interleave(runs, 0) if runs > 1 else x


def _required(hook: Any) -> Any:
    """Return a hook's result, which a checked mode guarantees to exist."""
    assert hook is not None, "a mode that the purifier lacks has been let through"
    return hook


def _denoised_once(purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    state, ctx = start(purifier, x, noise)
    return purifier.finish(_required(purifier.one_step())(state, ctx), ctx)


def _forward_noise(purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    straight = purifier.straightened()
    state, ctx = start(straight, x, noise)
    return straight.finish(run_steps(straight, state, ctx, step_noise(straight, x, noise)), ctx)


def _joint(purifier: Purifier, x: Tensor, noise: Noise, runs: int, mode: str) -> Tensor:
    image = x.detach()
    value = purify(purifier, repeated(image, runs), noise)
    with torch.no_grad():
        if mode == "joint-score":
            direction = _required(purifier.score_direction())(image)
        else:
            direction = value.view(len(x), runs, *x.shape[1:]).sum(1) - runs * image
    joint: Tensor = _Joint.apply(x, direction.sign())
    return with_gradient(value, repeated(joint, runs))


class _Joint(torch.autograd.Function):
    """The identity; backward, the mean of the gradient's signs and of fixed signs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, signs: Tensor) -> Tensor:
        ctx.save_for_backward(signs)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = grads
        # Keep NaN and infinity: their signs would hide a missing gradient.
        signs = torch.where(gradient.isfinite(), gradient.sign(), gradient)
        return (signs + ctx.saved_tensors[0]) / 2, None
