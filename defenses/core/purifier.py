"""Interface of purifiers: pure steps with explicit noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from defenses.core.noise import Draw
from defenses.utils.errors import UserError
from defenses.utils.modules import shared_copy

State = dict[str, Tensor]  # batch first, every entry


def keep_done_rows(done: Tensor, old: State, new: State) -> State:
    """Return the state after a step, with rows that are done as they were before it.

    Entries that the old state lacks, as between the parts of a chain, are new in all rows.

    Args:
        done: bool [B].
        old: the state before the step.
        new: the state after the step.
    """
    rows = {n: done.view(-1, *[1] * (v.dim() - 1)) for n, v in new.items() if n in old}
    return {n: torch.where(rows[n], old[n], v) if n in old else v for n, v in new.items()}


def with_gradient(value: Tensor, path: Tensor) -> Tensor:
    """Return a value, bit for bit, with the gradient of another tensor.

    Args:
        value: a tensor; returned as it is if not floating-point.
        path: a tensor of the same shape, whose gradient the result gets.
    """
    return value + (path - path.detach()) if value.is_floating_point() else value


def _straightened_step(step: Callable[..., State], state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
    with torch.no_grad():
        new = step(state, ctx, k, z)
    return {n: with_gradient(v, state[n]) for n, v in new.items()}


@dataclass(frozen=True)
class NoiseSpec:
    """Draws of one image: those of `start`, and those of every `step`."""

    start: tuple[Draw, ...] = ()
    step: tuple[Draw, ...] = ()


class Purifier(nn.Module, ABC):
    """A purifier as a sequence of pure steps.

    No step uses a random generator, stores state in the module or writes into its arguments. Images are float32
    NCHW in [0, 1]. Every tensor of `state` and `ctx` has the batch as its first axis.

    Attributes:
        steps: upper bound on the number of steps.
        paths: names of the methods and networks that carry the gradient; a certificate checks each.
        differentiable: True if gradients go through it; a purifier that rounds, for example, has no exact ones.
        holds_image: True if the state is the image at every step, so that steps may count as the identity.
    """

    steps: int
    paths: tuple[str, ...] = ()
    differentiable: bool = True
    holds_image: bool = True

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:  # noqa: ARG002
        """Return the draws of an image of `shape` (C, H, W). Default: none."""
        return NoiseSpec()

    def cost_modules(self) -> list[nn.Module]:
        """Return the networks whose passes are the purifier's cost. Default: the direct children."""
        return list(self.children())

    @abstractmethod
    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Return (state, ctx) for images [B, C, H, W] and their draws; ctx is constant over the steps."""

    @abstractmethod
    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Return the state after step k (from 0), given the draws of the step."""

    def done(self, state: State) -> Tensor | None:  # noqa: ARG002
        """Return a mask, bool [B], of rows that no further step changes; None: all rows make all steps.

        For such rows `finish` must not read an entry that a later step adds.
        """
        return None

    @abstractmethod
    def finish(self, state: State, ctx: State) -> Tensor:
        """Return the purified images [B, C, H, W] in [0, 1] scale."""

    def shortened(self, steps: int) -> Purifier:
        """Return the purifier with its first `steps` steps alone, for checks of its gradient."""
        return shared_copy(self, steps=steps)

    # Hooks of gradient modes (`defenses.core.gradient_modes`); None: the purifier lacks the mode.

    def straightened(self) -> Purifier:
        """Return the purifier with the identity as the gradient of every step."""
        return shared_copy(self, step=partial(_straightened_step, self.step))

    def surrogate(self, steps: int | None = None) -> Purifier | None:
        """Return a cheaper purifier for attacks.

        A purifier whose steps lead from one time to another (SDE, ODE, diffusion) must override it, with fewer and
        larger steps over the same times (Lee & Kim 2023): the first quarter of the steps would return a noisy image.

        Args:
            steps: number of steps; None: the first quarter of the purifier's, at least one.

        Raises:
            UserError: `steps` is not below the purifier's own number.
        """
        if self.steps < 2 or isinstance(getattr(type(self), "steps", None), property):
            return None
        self._check_fewer(steps)
        return shared_copy(self, steps=max(1, self.steps // 4) if steps is None else steps)

    def _check_fewer(self, steps: int | None) -> None:
        if steps is not None and steps >= self.steps:
            raise UserError(f"a surrogate of {steps} steps is no cheaper than the purifier of {self.steps}; take fewer")

    def one_step(self) -> Callable[[State, State], State] | None:
        """Return one step as a denoiser, (state, ctx) at the start -> state, without noise or clamp."""
        return None

    def backward_network(self) -> Callable[[Tensor], Tensor] | None:
        """Return a network in place of the purifier backward, images [B, C, H, W] in [0, 1] -> the same."""
        return None

    def score_direction(self) -> Callable[[Tensor], Tensor] | None:
        """Return a map from images [B, C, H, W] in [0, 1] to an ascent direction of the log-density, of any length."""
        return None

    def bridged(self) -> Purifier | None:
        """Return the purifier with the identity's gradient in place of parts without one; None if all or none have."""
        return None

    def smoothed(self, width: float | None = None) -> Purifier | None:  # noqa: ARG002
        """Return the purifier with smooth activations and the same weights; None if none are piecewise linear.

        Args:
            width: see `defenses.core.smooth_activations.SmoothLeakyReLU`; None: the purifier's choice.
        """
        return None

    def differenced(self, scale: float | None = None) -> Purifier | None:  # noqa: ARG002
        """Return the purifier with steps that are differentiated at a finite scale.

        Args:
            scale: see `defenses.core.smooth_activations.Differenced`; None: the purifier's choice.
        """
        return None


def is_purifier(value: Any) -> bool:
    """Return True if a value is a purifier or the class of one."""
    return isinstance(value, Purifier) or (isinstance(value, type) and issubclass(value, Purifier))
