"""Exact gradients through a purifier in bounded memory: steps are recomputed, backwards, from stored states.

The forward pass stores the state before every segment of steps, and the graph of the last steps alone, as far as there
is memory for it. The backward pass recomputes one segment at a time, with a graph and with its noise drawn again, and
carries the gradient to the state before it. All tensors that depend on the image take part: states, the context, step
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

_SHARE = 0.25  # of the free memory: a smaller graph is kept whole
_measuring = ContextVar("measuring", default=False)
_measured_sizes: WeakKeyDictionary[Purifier, dict[Any, tuple[int, int]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Extent:
    """Extent of the graph in memory.

    Args:
        length: steps of a segment, whose graph exists while it is recomputed.
        last: steps at the end whose graph is kept from the forward pass.
    """

    length: int
    last: int


def replayed(
    purifier: Purifier, x: Tensor, noise: Noise, *, length: int = 1, last: int = 0, backward: Purifier | None = None
) -> Tensor:
    """Return purified images with a gradient that recomputes the steps, `length` at a time.

    Works under `torch.autograd.grad` and `.backward()`, with `retain_graph` and under autocast; differentiable
    once. Parameters that require grad get a gradient.

    Args:
        purifier: the purifier.
        x: images [B, C, H, W] in [0, 1], requiring grad.
        noise: B streams.
        length: steps per segment.
        last: number of steps at the end that keep their graph and are not recomputed; 0 with another `backward`.
        backward: the purifier whose steps the backward pass recomputes, from the states of `purifier`; None:
            `purifier`, which is exact.

    Returns:
        Purified images [B, C, H, W].
    """
    recomputed = purifier if backward is None else backward
    assert recomputed is purifier or not last, "the last steps would be differentiated as those of the purifier itself"
    parameters = [p for p in recomputed.parameters() if p.requires_grad]
    stop = max(0, purifier.steps - last)
    plan = _Plan(purifier, recomputed, length, stop, _Autocast(x.device.type), [])
    outputs = iter(_Replay.apply(x, noise.keys, plan, *parameters))
    state, ctx = ({name: next(outputs) for name in names} for names in plan.names)
    rest = range(stop, purifier.steps)
    return purifier.finish(advance(purifier, state, ctx, rest, step_noise(purifier, x, noise)), ctx)


def extent(purifier: Purifier, x: Tensor, noise: Noise) -> Extent:
    """Return the extent of the graph: all steps if memory allows, else the one that needs the least memory.

    With states of s bytes and graphs of g a step, K/n states and the graph of n steps are least at n = sqrt(K s/g).
    The rest of the memory goes to the graph of the last steps, n at least: it is freed before a segment's is built.

    Args:
        purifier: the purifier.
        x: images [B, C, H, W] in [0, 1].
        noise: B streams.
    """
    if purifier.steps <= 1:
        return Extent(1, purifier.steps)
    state, graph = (len(x) * size for size in bytes_per_row(purifier, x, noise))
    free = _SHARE * free_memory(x.device)
    if graph * purifier.steps <= free:
        return Extent(purifier.steps, purifier.steps)
    length = max(1, min(purifier.steps - 1, round(math.sqrt(purifier.steps * state / max(graph, 1)))))
    spare = free - state * purifier.steps / length
    return Extent(length, max(length, min(purifier.steps - 1, int(spare / max(graph, 1)))))


def measuring() -> bool:
    """Return True while a pass only measures the size of a graph: it is no part of a gradient's cost."""
    return _measuring.get()


def bytes_per_row(purifier: Purifier, x: Tensor, noise: Noise) -> tuple[int, int]:
    """Return (bytes of a state, bytes of the graph of one step) of one row, measured once."""
    frozen = not any(p.requires_grad for p in purifier.parameters())
    key = (tuple(x.shape[1:]), x.dtype, x.device, purifier.steps, frozen, _Autocast(x.device.type))
    sizes = _measured_sizes.setdefault(purifier, {})
    if key not in sizes:
        row, stream = x[:1].detach().requires_grad_(), noise.rows(slice(0, 1))
        token = _measuring.set(True)
        try:
            with torch.enable_grad():
                state, ctx = start(purifier, row, stream)
                leaf = _leaves(state)
                with graph_bytes(purifier) as saved:
                    advance(purifier, leaf, _leaves(ctx), range(1), step_noise(purifier, row, stream, 1))
        finally:
            _measuring.reset(token)
        sizes[key] = sum(v.nbytes for v in state.values()), saved[0]
    return sizes[key]


@contextmanager
def graph_bytes(purifier: Purifier) -> Iterator[list[int]]:
    """Count the bytes that graphs built in the context hold, weights apart."""
    counted = {p.untyped_storage().data_ptr() for p in purifier.parameters()}
    total, held = [0], []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in counted:
            counted.add(storage.data_ptr())
            held.append(tensor)  # so that no other storage gets its address
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
    held.clear()


@dataclass(frozen=True)
class _Autocast:
    """Autocast state of a forward pass, for the backward pass."""

    device: str
    enabled: bool = False
    dtype: torch.dtype | None = None

    def __init__(self, device: str):
        enabled = torch.is_autocast_enabled(device)
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "enabled", enabled)
        object.__setattr__(self, "dtype", torch.get_autocast_dtype(device) if enabled else None)

    def context(self) -> AbstractContextManager[Any]:
        # Without its cache: casts of weights made without grad would be reused with grad.
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)


@dataclass(frozen=True)
class _Plan:
    """Arguments of a replay: purifiers, segments, autocast state, and the order of the outputs."""

    purifier: Purifier
    backward: Purifier
    length: int
    stop: int  # later steps keep their graph
    autocast: _Autocast
    names: list[tuple[str, ...]]  # of state and context, in the order of the outputs; filled by the forward pass

    def segments(self) -> list[range]:
        return [range(i, min(i + self.length, self.stop)) for i in range(0, self.stop, self.length)]


class _Replay(torch.autograd.Function):
    """Map images to the state at `plan.stop`, and the context."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, plan: _Plan, *parameters: Tensor) -> tuple[Tensor, ...]:
        purifier, noise = plan.purifier, Noise(keys)
        with plan.autocast.context():
            state, constant = start(purifier, x, noise)
            z, states = step_noise(purifier, x, noise, plan.stop), []
            for segment in plan.segments():
                states.append(state)
                state = advance(purifier, state, constant, segment, z)
        plan.names[:] = tuple(state), tuple(constant)
        ctx.plan, ctx.n_parameters, ctx.names = plan, len(parameters), [tuple(s) for s in states]
        ctx.save_for_backward(x, keys, *parameters, *constant.values(), *(v for s in states for v in s.values()))
        out = tuple(v.clone() for v in (*state.values(), *constant.values()))  # autograd: no input, no tensor twice
        ctx.mark_non_differentiable(*(v for v in out if not v.is_floating_point()))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: this gradient has no graph, and would count as constant
            raise RuntimeError("a replayed gradient is differentiable once; use defenses.core.purify.unrolled for more")
        x, keys, *rest = ctx.saved_tensors
        n, plan = ctx.n_parameters, ctx.plan
        names, constants = plan.names
        parameters = [p for p, need in zip(rest[:n], ctx.needs_input_grad[3:], strict=True) if need]
        constant = dict(zip(constants, rest[n:], strict=False))
        flat = iter(rest[n + len(constant) :])
        states = [{name: next(flat) for name in state_names} for state_names in ctx.names]
        incoming = dict(zip(names, grads, strict=False)), dict(zip(constants, grads[len(names) :], strict=True))
        with torch.enable_grad(), plan.autocast.context():
            back = _BackwardPass(plan, x, Noise(keys), constant, parameters, incoming)
            for segment in reversed(plan.segments()):
                back.through(states.pop(), segment)
            gradient = back.to_image()
        gradients = iter(back.at_parameters)
        return gradient, None, None, *(next(gradients) if need else None for need in ctx.needs_input_grad[3:])


class _BackwardPass:
    """Backward pass of a replay: the gradient at the state, and its sums at the context and the parameters."""

    def __init__(
        self,
        plan: _Plan,
        x: Tensor,
        noise: Noise,
        constant: State,
        parameters: Sequence[Tensor],
        incoming: tuple[State, State],
    ):
        self.purifier, self.x, self.noise, self.constant = plan.backward, x, noise, constant
        self.z = step_noise(plan.backward, x, noise)
        self.parameters = list(parameters)
        state, self.at_constant = ({n: g for n, g in gs.items() if g.is_floating_point()} for gs in incoming)
        self.at_state: State = state
        self.at_parameters = [torch.zeros_like(p) for p in parameters]

    def through(self, before: State, segment: range) -> None:
        """Carry the gradient back through a segment, from the state before it."""
        leaf, constant = _leaves(before), _leaves(self.constant)
        after = advance(self.purifier, leaf, constant, segment, self.z.until(segment.stop))
        names = [n for n, v in leaf.items() if v.requires_grad]
        inputs = [leaf[n] for n in names] + [constant[n] for n in self.at_constant]
        gradients = self._pull([after[n] for n in self.at_state], list(self.at_state.values()), inputs)
        self.at_state = dict(zip(names, gradients, strict=False))
        for name, part in zip(self.at_constant, gradients[len(names) :], strict=True):
            self.at_constant[name] = self.at_constant[name] + part

    def to_image(self) -> Tensor:
        """Return the gradient at the image, back through `start`."""
        x = self.x.detach().requires_grad_()
        state, constant = start(self.purifier, x, self.noise)
        outputs = [state[n] for n in self.at_state] + [constant[n] for n in self.at_constant]
        return self._pull(outputs, [*self.at_state.values(), *self.at_constant.values()], [x])[0]

    def _pull(self, outputs: list[Tensor], incoming: list[Any], inputs: list[Tensor]) -> list[Tensor]:
        pairs = [(o, g) for o, g in zip(outputs, incoming, strict=True) if o.requires_grad]
        if not pairs:
            return [torch.zeros_like(v) for v in inputs]
        # Its gradient at `o` is `g` itself. To take one that starts from `g`, torch imports sympy, which takes seconds.
        product = torch.stack([(o * g).sum() for o, g in pairs]).sum()
        sources = [*inputs, *self.parameters]
        gradients = torch.autograd.grad(product, sources, allow_unused=True, materialize_grads=True)
        for i, part in enumerate(gradients[len(inputs) :]):
            self.at_parameters[i] = self.at_parameters[i] + part
        return list(gradients[: len(inputs)])


def _leaves(state: State) -> State:
    """Return a state without its graph; floating-point entries collect gradients."""
    return {n: v.detach().requires_grad_(v.is_floating_point()) for n, v in state.items()}
