"""Single steps of a purifier, with their noise."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.core.noise import Draw, Noise
from defenses.core.purifier import Purifier, State, kept

_START, _STEP = 0, 1  # names of the noise streams
_NOISE_VALUES = 1 << 24  # at most this many values of step noise are held at once (64 MB)


class StepNoise:
    """Step noise, drawn for many steps at once where memory allows; the values do not depend on how many.

    Args:
        noise: streams of the whole purification.
        draws: what a step draws.
        steps: no step from here on is asked for.
    """

    def __init__(self, noise: Noise, draws: tuple[Draw, ...], steps: int):
        self.draws, self.steps = draws, steps
        self.streams = [noise.child(_STEP, i) for i in range(len(draws))]
        self.span = range(0)
        self.held: list[Tensor] = []

    def __call__(self, k: int) -> tuple[Tensor, ...]:
        """The draws of step k."""
        if self.draws and k not in self.span:
            values = len(self.streams[0]) * sum(torch.Size(d.shape).numel() for d in self.draws)
            self.span = range(k, min(self.steps, k + max(1, _NOISE_VALUES // max(values, 1))))
            self.held = [stream.draw(d, self.span) for stream, d in zip(self.streams, self.draws, strict=True)]
        return tuple(z[k - self.span.start] for z in self.held)

    def until(self, stop: int) -> StepNoise:
        """From now on, no step from `stop` on is asked for."""
        self.steps = stop
        return self

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows."""
        self.streams = [stream.rows(rows) for stream in self.streams]
        self.held = [z[:, rows] for z in self.held]


def start(purifier: Purifier, x: Tensor, noise: Noise) -> tuple[State, State]:
    """(state, ctx) before the first step."""
    draws = purifier.noise(tuple(x.shape[1:])).start
    return purifier.start(x, tuple(noise.child(_START, i).draw(d).to(x.dtype) for i, d in enumerate(draws)))


def step_noise(purifier: Purifier, x: Tensor, noise: Noise, stop: int | None = None) -> StepNoise:
    """The noise of the steps before `stop`, or of all."""
    draws = purifier.noise(tuple(x.shape[1:])).step
    return StepNoise(noise, draws, purifier.steps if stop is None else stop)


def advance(purifier: Purifier, state: State, ctx: State, steps: range, z: StepNoise) -> State:
    """The state after some steps: all rows make them, and rows that are done keep their state."""
    for k in steps:
        new = purifier.step(state, ctx, k, z(k))
        done = purifier.done(state)
        state = new if done is None else kept(done, state, new)
    return state


def run_steps(purifier: Purifier, state: State, ctx: State, z: StepNoise) -> State:
    """The state after all steps, as by `advance`, but rows that are done leave the batch.

    It has the names that the newest rows have; what rows that left before do not have is zero.
    """
    final: State = {}
    where: Tensor | None = None  # where the rows at work stand in the batch; None: all of them, in order
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
    """The state of the whole batch, with rows of another at their places."""
    size = len(next(iter(final.values())))
    whole = {n: final[n] if n in final else v.new_zeros((size, *v.shape[1:])) for n, v in state.items()}
    for n, v in state.items():
        whole[n][where] = v
    return whole
