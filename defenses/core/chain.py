"""Purifiers one after another, as one purifier: filters in front of a purifier, or several purifiers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from defenses.core.purifier import NoiseSpec, Purifier, State, kept, with_gradient
from defenses.utils.errors import UserError

_ANY = (1, 1, 1)  # how many draws a purifier needs does not depend on the shape


class Chain(Purifier):
    """Each purifier takes what the one before gives.

    The state is that of the part at work, under names that tell the part; its constant context travels in the state,
    for it depends on the parts before. The noise that later parts begin with is drawn at the start. All parts that
    draw in their steps draw in every step, so that draws do not depend on how many steps another part makes.

    Args:
        parts: at least one; the first sees the image.

    Raises:
        UserError: there are no parts.
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
        """Those of all parts."""
        return sum(p.steps for p in self._parts)

    @property
    def paths(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the parts, each after its part: "parts.1.score"."""
        return tuple(f"parts.{i}.{path}" for i, p in enumerate(self._parts) if p.steps for path in p.paths)

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """The draws of all parts, in order."""
        specs = [p.noise(shape) for p in self._parts]
        return NoiseSpec(tuple(d for s in specs for d in s.start), tuple(d for s in specs for d in s.step))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """The first part's start, and on through parts that make no steps."""
        per_part = self._split(z, [len(p.noise(_ANY).start) for p in self._parts])
        later = {f"z{i}.{j}": v for i, own in enumerate(per_part) for j, v in enumerate(own) if i}
        state = _named(0, *self._parts[0].start(x, per_part[0]))
        return (state if self._parts[0].steps else self._onwards(0, state, later)), later

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """One step of the part at work; after its last, its finish and the next part's start."""
        at, first = 0, 0
        while k >= first + self._parts[at].steps:
            first += self._parts[at].steps
            at += 1
        part, (own, constant) = self._parts[at], _own(at, state)
        drawn = self._split(z, [len(p.noise(_ANY).step) for p in self._parts])[at]
        new = part.step(own, constant, k - first, drawn)
        done = part.done(own)
        if done is not None:  # rows that are done keep their state
            new = kept(done, own, new)
        state = _named(at, new, constant)
        return self._onwards(at, state, ctx) if k + 1 == first + part.steps else state

    def finish(self, state: State, ctx: State) -> Tensor:  # noqa: ARG002
        """The last part's finish."""
        last = len(self.parts) - 1
        return self._parts[last].finish(*_own(last, state))

    def _onwards(self, at: int, state: State, later: State) -> State:
        """From a part that has no step left to the next one that has, or to the end of the last."""
        while at + 1 < len(self.parts):
            image = self._parts[at].finish(*_own(at, state))
            at += 1
            drawn = tuple(v for n, v in later.items() if n.startswith(f"z{at}."))
            state = _named(at, *self._parts[at].start(image, drawn))
            if self._parts[at].steps:
                break
        return state

    def _split(self, z: tuple[Tensor, ...], counts: list[int]) -> list[tuple[Tensor, ...]]:
        ends = [sum(counts[:i]) for i in range(len(counts) + 1)]
        return [z[a:b] for a, b in itertools.pairwise(ends)]

    def cost_modules(self) -> list[nn.Module]:
        """The networks of all parts."""
        return [m for p in self._parts for m in p.cost_modules()]

    def shortened(self, steps: int) -> Chain:
        """Every part with at most its share of the steps."""
        share = max(1, steps // len(self.parts))
        return Chain([p.shortened(share) if p.steps > share else p for p in self._parts])

    def surrogate(self, steps: int | None = None) -> Purifier | None:
        """Cheaper parts where there are such; `steps` is for each."""
        return self._exchanged(lambda p: p.surrogate() if steps is None else p.surrogate(steps))

    def bridged(self) -> Purifier | None:
        """The parts, with the values of those without a gradient; None where all have one, none has, or one steps."""
        solid = [p for p in self._parts if not p.differentiable]
        if not 0 < len(solid) < len(self._parts) or any(p.steps for p in solid):
            return None
        return Chain([p if p.differentiable else _Bridge(p) for p in self._parts])

    def smoothed(self, width: float | None = None) -> Purifier | None:
        """Smoothed parts where there are such."""
        return self._exchanged(lambda p: p.smoothed() if width is None else p.smoothed(width))

    def differenced(self, scale: float | None = None) -> Purifier | None:
        """Parts that are differentiated at a finite scale where there are such."""
        return self._exchanged(lambda p: p.differenced() if scale is None else p.differenced(scale))

    def straightened(self) -> Chain:
        """Straightened parts: the identity is no gradient from one part's state to another's."""
        return Chain([p.straightened() for p in self._parts])

    def one_step(self) -> Callable[[State, State], State] | None:
        """One step of each part that makes any; None where one of them has none."""
        moves = [p.one_step() for p in self._parts]
        first = next((i for i, p in enumerate(self._parts) if p.steps), None)
        if first is None or any(p.steps and m is None for p, m in zip(self._parts, moves, strict=True)):
            return None

        def through(state: State, later: State) -> State:
            for at, move in enumerate(moves):
                if self._parts[at].steps and move is not None:
                    own, constant = _own(at, state)
                    state = self._onwards(at, _named(at, move(own, constant), constant), later)
            return state

        return through

    def backward_network(self) -> Callable[[Tensor], Tensor] | None:
        """Those of the parts in turn, if there is one; parts without one count as the identity."""
        found = [n for n in (p.backward_network() for p in self._parts) if n is not None]
        return (lambda x: functools.reduce(lambda image, network: network(image), found, x)) if found else None

    def score_direction(self) -> Callable[[Tensor], Tensor] | None:
        """That of the first part that has one."""
        return next((s for s in (p.score_direction() for p in self._parts) if s is not None), None)

    def _exchanged(self, other: Callable[[Purifier], Purifier | None]) -> Purifier | None:
        found = [other(p) for p in self._parts]
        if all(f is None for f in found):
            return None
        return Chain([p if f is None else f for p, f in zip(self._parts, found, strict=True)])


class _Bridge(Purifier):
    """A purifier without steps: its values, and the gradient of the identity."""

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

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:  # noqa: ARG002
        return state

    def finish(self, state: State, ctx: State) -> Tensor:  # noqa: ARG002
        return state["x"]


def _named(at: int, state: State, ctx: State) -> State:
    return {f"{at}.{n}": v for n, v in state.items()} | {f"{at}:{n}": v for n, v in ctx.items()}


def _own(at: int, state: State) -> tuple[State, State]:
    """(state, context) of the part at work."""
    state, ctx = ({n.removeprefix(m): v for n, v in state.items() if n.startswith(m)} for m in (f"{at}.", f"{at}:"))
    return state, ctx
