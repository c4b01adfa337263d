"""The purifier protocol, pure steps with explicit noise, and the one loop that runs them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defenses.noise import Draw, Noise

State = dict[str, Tensor]  # batch first, every entry

_START, _STEP = 0, 1  # names of the noise streams
_NOISE_VALUES = 1 << 24  # at most this many values of step noise are held at once (64 MB)


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


class _StepNoise:
    """Step noise, drawn for many steps at once where memory allows; the values do not depend on how many."""

    def __init__(self, noise: Noise, draws: tuple[Draw, ...], steps: int):
        self.noise, self.draws, self.steps = noise, draws, steps
        self.span = range(0)
        self.held: list[Tensor] = []

    def __call__(self, k: int) -> tuple[Tensor, ...]:
        if self.draws and k not in self.span:
            values = len(self.noise) * sum(torch.Size(d.shape).numel() for d in self.draws)
            self.span = range(k, min(self.steps, k + max(1, _NOISE_VALUES // max(values, 1))))
            self.held = [self.noise.child(i).draw(d, self.span) for i, d in enumerate(self.draws)]
        return tuple(z[k - self.span.start] for z in self.held)

    def keep(self, rows: Tensor) -> None:
        self.noise = self.noise.rows(rows)
        self.held = [z[:, rows] for z in self.held]


def purify(purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    """Run a purifier.

    With grad enabled and `x` or a state requiring grad, the result carries the exact gradient through every step.
    Otherwise no graph is kept, and images that are done leave the batch.

    Args:
        purifier: the purifier.
        x: images, float32 [B, C, H, W] in [0, 1].
        noise: B streams.

    Returns:
        Purified images [B, C, H, W].
    """
    spec = purifier.noise(tuple(x.shape[1:]))
    z = tuple(noise.child(_START, i).draw(d).to(x.dtype) for i, d in enumerate(spec.start))
    state, ctx = purifier.start(x, z)
    step_noise = _StepNoise(noise.child(_STEP), spec.step, purifier.steps)
    if torch.is_grad_enabled() and x.requires_grad:
        return purifier.finish(_run_frozen(purifier, state, ctx, step_noise), ctx)
    with torch.no_grad():
        return purifier.finish(_run_leaving(purifier, state, ctx, step_noise), ctx)


def _run_frozen(purifier: Purifier, state: State, ctx: State, step_noise: _StepNoise) -> State:
    """All rows make all steps; rows that are done keep their state."""
    for k in range(purifier.steps):
        new = purifier.step(state, ctx, k, step_noise(k))
        done = purifier.done(state)
        if done is not None:
            new = {n: torch.where(done.view(-1, *[1] * (v.dim() - 1)), state[n], v) for n, v in new.items()}
        state = new
    return state


def _run_leaving(purifier: Purifier, state: State, ctx: State, step_noise: _StepNoise) -> State:
    """As `_run_frozen`, but rows that are done leave the batch."""
    final = {n: v.clone() for n, v in state.items()}
    where: Tensor | None = None  # where the rows at work stand in `final`; None: all of them, in order
    for k in range(purifier.steps):
        done = purifier.done(state)
        if done is not None and bool(done.any()):
            rows = torch.nonzero(~done).squeeze(1)
            if where is None:
                where = torch.arange(len(done), device=done.device)
            left = where[done]
            for n, v in state.items():
                final[n][left] = v[done]
            where = where[rows]
            if len(rows) == 0:
                return final
            state = {n: v[rows] for n, v in state.items()}
            ctx = {n: v[rows] for n, v in ctx.items()}
            step_noise.keep(rows)
        state = purifier.step(state, ctx, k, step_noise(k))
    if where is None:
        return state
    for n, v in state.items():
        final[n][where] = v
    return final
