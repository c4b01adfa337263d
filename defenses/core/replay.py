"""Exact gradients through a purifier in bounded memory: steps are made again, backwards, from stored states.

The forward pass keeps the state before every segment of steps, and no graph but that of the last steps, as far as there
is memory for it. The backward pass makes one segment at a time again, with a graph and with its noise drawn anew, and
carries the gradient to the state before it. Everything that depends on the image takes part: states, the context, step
sizes. Griewank & Walther 2000 is the general scheme.

Time against plain autograd: one more forward pass, less the steps whose graph is kept. With weights frozen, as in
attacks, a backward pass computes no gradients of weights and costs about a forward pass: 3/2, not 4/3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from defenses.core.noise import Noise
from defenses.core.purifier import Purifier, State
from defenses.core.steps import advance, start, step_noise
from defenses.utils.memory import free_memory

_SHARE = 0.25  # of the free memory: a graph that takes less is kept whole
_measuring = ContextVar("measuring", default=False)
_weights: WeakKeyDictionary[Purifier, dict[Any, tuple[int, int]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Extent:
    """How much graph is held at once: that of `length` steps made again, and, from the start, of the `last` steps."""

    length: int
    last: int


def replayed(
    purifier: Purifier, x: Tensor, noise: Noise, *, length: int = 1, last: int = 0, backward: Purifier | None = None
) -> Tensor:
    """Purified images whose gradient comes from making the steps again, `length` at a time.

    Works under `torch.autograd.grad` and `.backward()`, with `retain_graph` and under autocast; differentiable
    once. Parameters that require grad get theirs.

    Args:
        purifier: the purifier.
        x: images [B, C, H, W] in [0, 1], requiring grad.
        noise: B streams.
        length: steps per segment.
        last: as many steps before the end keep their graph and are not made again.
        backward: makes the steps of the backward pass from the states of `purifier`, from which steps with a graph of
            their own (`last`) would lead away; None: `purifier`, which is exact.

    Returns:
        Purified images [B, C, H, W].
    """
    again = purifier if backward is None else backward
    assert again is purifier or not last, "the last steps would be differentiated as those of the purifier itself"
    parameters = [p for p in again.parameters() if p.requires_grad]
    first = max(0, purifier.steps - last)
    plan = _Plan(purifier, again, length, first, _Autocast(x.device.type), [])
    found = iter(_Replay.apply(x, noise.keys, plan, *parameters))
    state, ctx = ({name: next(found) for name in names} for names in plan.names)
    rest = range(first, purifier.steps)
    return purifier.finish(advance(purifier, state, ctx, rest, step_noise(purifier, x, noise)), ctx)


def extent(purifier: Purifier, x: Tensor, noise: Noise) -> Extent:
    """How much graph to hold: that of all steps, where there is memory for it, else what needs the least memory.

    With states of s bytes and graphs of g a step, K/n states and the graph of n steps are least at n = sqrt(K s/g).
    What is left of the memory goes to the graph of the last steps, of n at least: they are gone before n others come.
    """
    if purifier.steps <= 1:
        return Extent(1, purifier.steps)
    state, graph = (len(x) * size for size in _sizes(purifier, x, noise))
    free = _SHARE * free_memory(x.device)
    if graph * purifier.steps <= free:
        return Extent(purifier.steps, purifier.steps)
    length = max(1, min(purifier.steps - 1, round(math.sqrt(purifier.steps * state / max(graph, 1)))))
    spare = free - state * purifier.steps / length
    return Extent(length, max(length, min(purifier.steps - 1, int(spare / max(graph, 1)))))


def measuring() -> bool:
    """Whether what goes through networks now only tells how much graph there would be: it is no cost of a gradient."""
    return _measuring.get()


def _sizes(purifier: Purifier, x: Tensor, noise: Noise) -> tuple[int, int]:
    """(bytes of a state, bytes of the graph of one step) of one row: measured once."""
    frozen = not any(p.requires_grad for p in purifier.parameters())
    key = (tuple(x.shape[1:]), x.dtype, x.device, purifier.steps, frozen, _Autocast(x.device.type))
    known = _weights.setdefault(purifier, {})
    if key not in known:
        row, one = x[:1].detach().requires_grad_(), noise.rows(slice(0, 1))
        token = _measuring.set(True)
        try:
            with torch.enable_grad():
                state, ctx = start(purifier, row, one)
                leaf = _leaves(state)
                with _saved_bytes(purifier) as saved:
                    advance(purifier, leaf, _leaves(ctx), range(1), step_noise(purifier, row, one, 1))
        finally:
            _measuring.reset(token)
        known[key] = sum(v.nbytes for v in state.values()), saved[0]
    return known[key]


@contextmanager
def _saved_bytes(purifier: Purifier) -> Iterator[list[int]]:
    """Counts the bytes that graphs made meanwhile hold; weights are there anyway."""
    seen = {p.untyped_storage().data_ptr() for p in purifier.parameters()}
    total, held = [0], []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            held.append(tensor)  # so that no other storage gets its address
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
    held.clear()


@dataclass(frozen=True)
class _Autocast:
    """The autocast state of a forward pass, to be had again in the backward pass."""

    device: str
    enabled: bool = False
    dtype: torch.dtype | None = None

    def __init__(self, device: str):
        enabled = torch.is_autocast_enabled(device)
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "enabled", enabled)
        object.__setattr__(self, "dtype", torch.get_autocast_dtype(device) if enabled else None)

    def again(self) -> AbstractContextManager[Any]:
        # Without its cache: casts of weights made without grad would be found again with grad.
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)


@dataclass(frozen=True)
class _Plan:
    purifier: Purifier
    backward: Purifier
    length: int
    stop: int  # steps from here on have a graph of their own
    autocast: _Autocast
    names: list[tuple[str, ...]]  # of state and context, in the order in which they leave; known after the start

    def segments(self) -> list[range]:
        return [range(i, min(i + self.length, self.stop)) for i in range(0, self.stop, self.length)]


class _Replay(torch.autograd.Function):
    """From images to the state at `plan.stop`, and the context."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, plan: _Plan, *parameters: Tensor) -> tuple[Tensor, ...]:
        purifier, noise = plan.purifier, Noise(keys)
        with plan.autocast.again():
            state, constant = start(purifier, x, noise)
            z, states = step_noise(purifier, x, noise, plan.stop), []
            for segment in plan.segments():
                states.append(state)
                state = advance(purifier, state, constant, segment, z)
        plan.names[:] = tuple(state), tuple(constant)
        ctx.plan, ctx.n_parameters, ctx.names = plan, len(parameters), [tuple(s) for s in states]
        ctx.save_for_backward(x, keys, *parameters, *constant.values(), *(v for s in states for v in s.values()))
        out = tuple(v.clone() for v in (*state.values(), *constant.values()))  # no input, and nothing twice
        ctx.mark_non_differentiable(*(v for v in out if not v.is_floating_point()))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: what is found here has none, and would pass for a constant
            raise RuntimeError("a replayed gradient is differentiable once; use defenses.core.purify.unrolled for more")
        x, keys, *rest = ctx.saved_tensors
        n, plan = ctx.n_parameters, ctx.plan
        names, constants = plan.names
        wanted = [p for p, need in zip(rest[:n], ctx.needs_input_grad[3:], strict=True) if need]
        constant = dict(zip(constants, rest[n:], strict=False))
        flat = iter(rest[n + len(constant) :])
        states = [{name: next(flat) for name in own} for own in ctx.names]
        arrived = dict(zip(names, grads, strict=False)), dict(zip(constants, grads[len(names) :], strict=True))
        with torch.enable_grad(), plan.autocast.again():
            back = _Back(plan, x, Noise(keys), constant, wanted, arrived)
            for segment in reversed(plan.segments()):
                back.through(states.pop(), segment)
            gradient = back.to_image()
        found = iter(back.parameters)
        return gradient, None, None, *(next(found) if need else None for need in ctx.needs_input_grad[3:])


class _Back:
    """The gradient on its way back: at the state, and what has come to the context and the parameters so far."""

    def __init__(
        self,
        plan: _Plan,
        x: Tensor,
        noise: Noise,
        constant: State,
        parameters: Sequence[Tensor],
        arrived: tuple[State, State],
    ):
        self.purifier, self.x, self.noise, self.constant = plan.backward, x, noise, constant
        self.z = step_noise(plan.backward, x, noise)
        self.wanted = list(parameters)
        state, self.at_constant = ({n: g for n, g in gs.items() if g.is_floating_point()} for gs in arrived)
        self.at_state: State = state
        self.parameters = [torch.zeros_like(p) for p in parameters]

    def through(self, before: State, segment: range) -> None:
        """Back through some steps."""
        leaf, constant = _leaves(before), _leaves(self.constant)
        after = advance(self.purifier, leaf, constant, segment, self.z.until(segment.stop))
        names = [n for n, v in leaf.items() if v.requires_grad]
        inputs = [leaf[n] for n in names] + [constant[n] for n in self.at_constant]
        found = self._pull([after[n] for n in self.at_state], list(self.at_state.values()), inputs)
        self.at_state = dict(zip(names, found, strict=False))
        for name, part in zip(self.at_constant, found[len(names) :], strict=True):
            self.at_constant[name] = self.at_constant[name] + part

    def to_image(self) -> Tensor:
        """Back through `start`."""
        x = self.x.detach().requires_grad_()
        state, constant = start(self.purifier, x, self.noise)
        outputs = [state[n] for n in self.at_state] + [constant[n] for n in self.at_constant]
        return self._pull(outputs, [*self.at_state.values(), *self.at_constant.values()], [x])[0]

    def _pull(self, outputs: list[Tensor], arriving: list[Any], inputs: list[Tensor]) -> list[Tensor]:
        pairs = [(o, g) for o, g in zip(outputs, arriving, strict=True) if o.requires_grad]
        if not pairs:
            return [torch.zeros_like(v) for v in inputs]
        ends, gradients = zip(*pairs, strict=True)
        found = torch.autograd.grad(ends, [*inputs, *self.wanted], gradients, allow_unused=True, materialize_grads=True)
        for i, part in enumerate(found[len(inputs) :]):
            self.parameters[i] = self.parameters[i] + part
        return list(found[: len(inputs)])


def _leaves(state: State) -> State:
    """A state cut from its past; floating-point entries collect gradients."""
    return {n: v.detach().requires_grad_(v.is_floating_point()) for n, v in state.items()}
