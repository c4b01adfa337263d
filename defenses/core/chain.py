"""Chain purifiers into one: filters in front of a purifier, or several purifiers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from defenses.core.purifier import NoiseSpec, Purifier, State, keep_done_rows, with_gradient
from defenses.utils.errors import UserError

_ANY = (1, 1, 1)  # the number of draws of a purifier does not depend on the shape


class Chain(Purifier):
    """Purifiers in series: each takes the output of the one before.

    The state is that of the active part, with the part's number in its names; the part's constant context is in the
    state too, because it depends on the parts before. The start noise of later parts is drawn at the start. All parts
    with step noise draw in every step, so that draws do not depend on the number of steps of another part.

    Args:
        parts: at least one; the first takes the image.

    Raises:
        UserError: `parts` is empty.
    """

    def __init__(self, parts: Sequence[Purifier]):
        super().__init__()
        if not parts:
            raise UserError("a chain of no purifiers; name at least one")
        self.parts = nn.ModuleList(parts)
        self.differentiable = all(p.differentiable for p in parts)
        self.holds_image = all(p.holds_image for p in parts)

    @property
    def _parts(self) -> list[Purifier]:
        return list(self.parts)  # type: ignore[arg-type]

    @property
    def steps(self) -> int:  # type: ignore[override]
        """Return the number of steps of all parts."""
        return sum(p.steps for p in self._parts)

    @property
    def paths(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the paths of the parts, with the part in front: "parts.1.score"."""
        return tuple(f"parts.{i}.{path}" for i, p in enumerate(self._parts) if p.steps for path in p.paths)

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return the draws of all parts, in order."""
        specs = [p.noise(shape) for p in self._parts]
        return NoiseSpec(tuple(d for s in specs for d in s.start), tuple(d for s in specs for d in s.step))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Start the first part, and pass through parts without steps."""
        per_part = self._split(z, [len(p.noise(_ANY).start) for p in self._parts])
        later = {f"z{i}.{j}": v for i, draws in enumerate(per_part) for j, v in enumerate(draws) if i}
        state = _chain_state(0, *self._parts[0].start(x, per_part[0]))
        return (state if self._parts[0].steps else self._next_part(0, state, later)), later

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Make one step of the active part; after its last step, finish it and start the next part."""
        at, first = 0, 0
        while k >= first + self._parts[at].steps:
            first += self._parts[at].steps
            at += 1
        part, (inner, constant) = self._parts[at], _part_state(at, state)
        draws = self._split(z, [len(p.noise(_ANY).step) for p in self._parts])[at]
        new = part.step(inner, constant, k - first, draws)
        done = part.done(inner)
        if done is not None:
            new = keep_done_rows(done, inner, new)
        state = _chain_state(at, new, constant)
        return self._next_part(at, state, ctx) if k + 1 == first + part.steps else state

    def finish(self, state: State, ctx: State) -> Tensor:
        """Finish the last part."""
        last = len(self.parts) - 1
        return self._parts[last].finish(*_part_state(last, state))

    def _next_part(self, at: int, state: State, later: State) -> State:
        """Finish a part and start the next one with steps, or the last part."""
        while at + 1 < len(self.parts):
            image = self._parts[at].finish(*_part_state(at, state))
            at += 1
            draws = tuple(v for n, v in later.items() if n.startswith(f"z{at}."))
            state = _chain_state(at, *self._parts[at].start(image, draws))
            if self._parts[at].steps:
                break
        return state

    def _split(self, z: tuple[Tensor, ...], counts: list[int]) -> list[tuple[Tensor, ...]]:
        ends = [sum(counts[:i]) for i in range(len(counts) + 1)]
        return [z[a:b] for a, b in itertools.pairwise(ends)]

    def cost_modules(self) -> list[nn.Module]:
        """Return the networks of all parts."""
        return [m for p in self._parts for m in p.cost_modules()]

    def shortened(self, steps: int) -> Chain:
        """Return the chain of parts with at most an equal share of the steps each."""
        share = max(1, steps // len(self.parts))
        return Chain([p.shortened(share) if p.steps > share else p for p in self._parts])

    def surrogate(self, steps: int | None = None) -> Purifier | None:
        """Return the chain with parts that have a surrogate replaced by it; `steps` is for each."""
        return self._with_replaced(lambda p: p.surrogate() if steps is None else p.surrogate(steps))

    def bridged(self) -> Purifier | None:
        """Return the chain with the identity's gradient for parts without one.

        None if all parts have a gradient, none has, or one without a gradient makes steps.
        """
        no_gradient = [p for p in self._parts if not p.differentiable]
        if not 0 < len(no_gradient) < len(self._parts) or any(p.steps for p in no_gradient):
            return None
        return Chain([p if p.differentiable else _Bridge(p) for p in self._parts])

    def smoothed(self, width: float | None = None) -> Purifier | None:
        """Return the chain with parts that can be smoothed replaced."""
        return self._with_replaced(lambda p: p.smoothed() if width is None else p.smoothed(width))

    def differenced(self, scale: float | None = None) -> Purifier | None:
        """Return the chain with parts that can be differentiated at a finite scale replaced."""
        return self._with_replaced(lambda p: p.differenced() if scale is None else p.differenced(scale))

    def straightened(self) -> Chain:
        """Return the chain of straightened parts: states of different parts have no identity between them."""
        return Chain([p.straightened() for p in self._parts])

    def one_step(self) -> Callable[[State, State], State] | None:
        """Return one step of each part with steps, in turn; None if such a part has no denoising step."""
        moves = [p.one_step() for p in self._parts]
        first = next((i for i, p in enumerate(self._parts) if p.steps), None)
        if first is None or any(p.steps and m is None for p, m in zip(self._parts, moves, strict=True)):
            return None

        def step(state: State, later: State) -> State:
            for at, move in enumerate(moves):
                if self._parts[at].steps and move is not None:
                    inner, constant = _part_state(at, state)
                    state = self._next_part(at, _chain_state(at, move(inner, constant), constant), later)
            return state

        return step

    def backward_network(self) -> Callable[[Tensor], Tensor] | None:
        """Return the networks of the parts in turn, if any; parts without one count as the identity."""
        networks = [n for n in (p.backward_network() for p in self._parts) if n is not None]
        return (lambda x: functools.reduce(lambda image, network: network(image), networks, x)) if networks else None

    def score_direction(self) -> Callable[[Tensor], Tensor] | None:
        """Return the score direction of the first part that has one."""
        return next((s for s in (p.score_direction() for p in self._parts) if s is not None), None)

    def _with_replaced(self, replacement: Callable[[Purifier], Purifier | None]) -> Purifier | None:
        """Return the chain with every part replaced that has a replacement; None if no part has."""
        replacements = [replacement(p) for p in self._parts]
        if all(r is None for r in replacements):
            return None
        return Chain([p if r is None else r for p, r in zip(self._parts, replacements, strict=True)])


class _Bridge(Purifier):
    """A purifier without steps, with the gradient of the identity."""

    steps = 0

    def __init__(self, part: Purifier):
        super().__init__()
        self.part = part

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        return self.part.noise(shape)

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        with torch.no_grad():
            value = self.part.finish(*self.part.start(x, z))
        return {"x": with_gradient(value, x)}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        return state

    def finish(self, state: State, ctx: State) -> Tensor:
        return state["x"]


def _chain_state(at: int, state: State, ctx: State) -> State:
    """Return the chain's state from (state, context) of the active part."""
    return {f"{at}.{n}": v for n, v in state.items()} | {f"{at}:{n}": v for n, v in ctx.items()}


def _part_state(at: int, state: State) -> tuple[State, State]:
    """Return (state, context) of the active part."""
    state, ctx = ({n.removeprefix(m): v for n, v in state.items() if n.startswith(m)} for m in (f"{at}.", f"{at}:"))
    return state, ctx
