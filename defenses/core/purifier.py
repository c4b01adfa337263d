"""The purifier protocol: pure steps with explicit noise."""

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


def kept(done: Tensor, old: State, new: State) -> State:
    """The state after a step that rows which are done, bool [B], do not make.

    Where a step gives the state other names, as between the parts of a chain, all rows have the values of new ones.
    """
    rows = {n: done.view(-1, *[1] * (v.dim() - 1)) for n, v in new.items() if n in old}
    return {n: torch.where(rows[n], old[n], v) if n in old else v for n, v in new.items()}


def with_gradient(value: Tensor, way: Tensor) -> Tensor:
    """The value, to the last bit, with the gradient of `way`; a value that is no floating-point number as it is."""
    return value + (way - way.detach()) if value.is_floating_point() else value


def _passed_by(step: Callable[..., State], state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
    with torch.no_grad():
        new = step(state, ctx, k, z)
    return {n: with_gradient(v, state[n]) for n, v in new.items()}


@dataclass(frozen=True)
class NoiseSpec:
    """The noise of one image: what `start` gets, and what every `step` gets."""

    start: tuple[Draw, ...] = ()
    step: tuple[Draw, ...] = ()


class Purifier(nn.Module, ABC):
    """A purifier as a sequence of pure steps.

    No step has a random generator, keeps state in the module or writes into its arguments. Images are float32
    NCHW in [0, 1]. Everything in `state` and `ctx` has the batch as its first axis.

    Attributes:
        steps: upper bound on the number of steps.
        paths: names of methods and networks through whose results the gradient goes; a certificate checks each.
        differentiable: whether gradients go through it; where not, as through rounding, there are no exact ones.
        holds_image: whether the state is the image on its way, so that steps may count as the identity.
    """

    steps: int
    paths: tuple[str, ...] = ()
    differentiable: bool = True
    holds_image: bool = True

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:  # noqa: ARG002
        """The noise that an image of `shape` (C, H, W) needs. Default: none."""
        return NoiseSpec()

    def cost_modules(self) -> list[nn.Module]:
        """The networks whose passes are the purifier's cost. Default: the direct children."""
        return list(self.children())

    @abstractmethod
    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """(state, ctx) from images [B, C, H, W]; ctx is constant over the steps, and differentiable."""

    @abstractmethod
    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """The state after step k (from 0)."""

    def done(self, state: State) -> Tensor | None:  # noqa: ARG002
        """Bool [B], rows that no further step would change (data, no gradient); None: all steps are always made.

        Of such rows `finish` must read no entry that a later step names anew.
        """
        return None

    @abstractmethod
    def finish(self, state: State, ctx: State) -> Tensor:
        """The purified images [B, C, H, W] in [0, 1] scale."""

    def shortened(self, steps: int) -> Purifier:
        """The purifier with its first so many steps alone, for checks of its gradient."""
        return shared_copy(self, steps=steps)

    # What follows is for gradient modes (`defenses.core.gradient_modes`) alone: None means that the purifier lacks the
    # mode.

    def straightened(self) -> Purifier:
        """The purifier whose steps have their values, and the gradient of the identity."""
        return shared_copy(self, step=partial(_passed_by, self.step))

    def surrogate(self, steps: int | None = None) -> Purifier | None:
        """A cheaper purifier for attacks, of `steps` steps. Default: the first quarter of the steps, at least one.

        A purifier whose steps lead from one time to another (SDE, ODE, diffusion) must override it, with fewer and
        larger steps over the whole way (Lee & Kim 2023): the first quarter of it would return a noisy image.

        Raises:
            UserError: no fewer steps than it has.
        """
        if self.steps < 2 or isinstance(getattr(type(self), "steps", None), property):
            return None
        if steps is not None and steps >= self.steps:
            raise UserError(f"a surrogate of {steps} steps is no cheaper than the purifier of {self.steps}; take fewer")
        return shared_copy(self, steps=max(1, self.steps // 4) if steps is None else steps)

    def one_step(self) -> Callable[[State, State], State] | None:
        """One step as a denoiser, (state, ctx) at the start -> state: no noise, no clamp."""
        return None

    def backward_network(self) -> Callable[[Tensor], Tensor] | None:
        """A network, images [B, C, H, W] in [0, 1] -> the same, that stands for the purifier, as an autoencoder."""
        return None

    def score_direction(self) -> Callable[[Tensor], Tensor] | None:
        """From images [B, C, H, W] in [0, 1] to the direction in which the log-density grows, of any length."""
        return None

    def bridged(self) -> Purifier | None:
        """The purifier with the identity's gradient in the place of parts that have none; where others have one."""
        return None

    def smoothed(self, width: float | None = None) -> Purifier | None:  # noqa: ARG002
        """The purifier with smooth activations and the same weights, where some are piecewise linear.

        Args:
            width: see `defenses.core.smooth_activations.SmoothLeakyReLU`; None: the purifier's choice.
        """
        return None

    def differenced(self, scale: float | None = None) -> Purifier | None:  # noqa: ARG002
        """The purifier with steps that are differentiated at a finite scale.

        Args:
            scale: see `defenses.core.smooth_activations.Differenced`; None: the purifier's choice.
        """
        return None


def is_purifier(found: Any) -> bool:
    """Whether an object is a purifier, or the class of one."""
    return isinstance(found, Purifier) or (isinstance(found, type) and issubclass(found, Purifier))
