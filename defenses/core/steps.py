"""Steps of a purifier, with their noise."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.core.noise import Draw, Noise
from defenses.core.purifier import Purifier, State, keep_done_rows

_START, _STEP = 0, 1  # names of the noise streams
_NOISE_VALUES = 1 << 24  # at most this many values of step noise are held at once (64 MB)


class StepNoise:
    """Noise of the steps, drawn for many steps at once where memory allows; the values do not depend on how many.

    Args:
        noise: streams of the whole purification.
        draws: the draws of a step.
        steps: number of steps; later ones are never drawn.
    """

    def __init__(self, noise: Noise, draws: tuple[Draw, ...], steps: int):
        self.draws, self.steps = draws, steps
        self.streams = [noise.child(_STEP, i) for i in range(len(draws))]
        self.span = range(0)
        self.held: list[Tensor] = []

    def __call__(self, k: int) -> tuple[Tensor, ...]:
        """Return the draws of step k."""
        if self.draws and k not in self.span:
            values = len(self.streams[0]) * sum(torch.Size(d.shape).numel() for d in self.draws)
            self.span = range(k, min(self.steps, k + max(1, _NOISE_VALUES // max(values, 1))))
            self.held = [stream.draw(d, self.span) for stream, d in zip(self.streams, self.draws, strict=True)]
        return tuple(z[k - self.span.start] for z in self.held)

    def until(self, stop: int) -> StepNoise:
        """Limit the steps to those before `stop`, and return this noise."""
        self.steps = stop
        return self

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.streams = [stream.rows(rows) for stream in self.streams]
        self.held = [z[:, rows] for z in self.held]


def start(purifier: Purifier, x: Tensor, noise: Noise) -> tuple[State, State]:
    """Return (state, ctx) before the first step.

    Args:
        purifier: the purifier.
        x: images [B, C, H, W] in [0, 1].
        noise: B streams.
    """
    draws = purifier.noise(tuple(x.shape[1:])).start
    return purifier.start(x, tuple(noise.child(_START, i).draw(d).to(x.dtype) for i, d in enumerate(draws)))


def step_noise(purifier: Purifier, x: Tensor, noise: Noise, stop: int | None = None) -> StepNoise:
    """Return the noise of the steps before `stop`, or of all steps.

    Args:
        purifier: the purifier.
        x: images [B, C, H, W], for their shape.
        noise: B streams.
        stop: number of steps; None: all.
    """
    draws = purifier.noise(tuple(x.shape[1:])).step
    return StepNoise(noise, draws, purifier.steps if stop is None else stop)


def advance(purifier: Purifier, state: State, ctx: State, steps: range, z: StepNoise) -> State:
    """Return the state after some steps of all rows; rows that are done keep their state.

    Args:
        purifier: the purifier.
        state: the state before the first of the steps.
        ctx: the context.
        steps: their numbers.
        z: the noise of the steps.
    """
    for k in steps:
        new = purifier.step(state, ctx, k, z(k))
        done = purifier.done(state)
        state = new if done is None else keep_done_rows(done, state, new)
    return state


def run_steps(purifier: Purifier, state: State, ctx: State, z: StepNoise) -> State:
    """Return the state after all steps, as `advance` does, without computing rows that are done.

    The state has the entries of the rows that finish last; entries that other rows lack are zero.

    Args:
        purifier: the purifier.
        state: the state before the first step.
        ctx: the context.
        z: the noise of the steps.
    """
    final: State = {}
    where: Tensor | None = None  # indices of the active rows in the batch; None: all of them, in order
    for k in range(purifier.steps):
        done = purifier.done(state)
        if done is not None and bool(done.any()):
            rows = torch.nonzero(~done).squeeze(1)
            if where is None:
                where = torch.arange(len(done), device=done.device)
                final = {n: v.clone() for n, v in state.items()}
            final = _put(final, state, where)
            where = where[rows]
            if len(rows) == 0:
                return final
            state = {n: v[rows] for n, v in state.items()}
            ctx = {n: v[rows] for n, v in ctx.items()}
            z.keep(rows)
        state = purifier.step(state, ctx, k, z(k))
    return state if where is None else _put(final, state, where)


def _put(final: State, state: State, where: Tensor) -> State:
    """Return the state of the whole batch, with rows of another state at their indices."""
    size = len(next(iter(final.values())))
    whole = {n: final[n] if n in final else v.new_zeros((size, *v.shape[1:])) for n, v in state.items()}
    for n, v in state.items():
        whole[n][where] = v
    return whole
