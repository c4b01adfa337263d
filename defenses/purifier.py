"""The purifier protocol: pure steps with explicit noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from defenses.noise import Draw

State = dict[str, Tensor]  # batch first, every entry


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
    """

    steps: int

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
        """Bool [B], rows that no further step would change (data, no gradient); None: all steps are always made."""
        return None

    @abstractmethod
    def finish(self, state: State, ctx: State) -> Tensor:
        """The purified images [B, C, H, W] in [0, 1] scale."""
