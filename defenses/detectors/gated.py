"""Detect, then purify: purification of images that a detector suspects (Yoon et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from defenses.core.detector import Guard
from defenses.core.noise import Noise
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.utils.errors import UserError, check_numbers
from defenses.utils.modules import shared_copy

_PREFIX = "purifier."  # before the names of the purifier's state
_MIN_GAP = 1e-3  # scores that differ by less, in scales of clean images, count as equal


class Gated(Purifier):
    """Purification of suspected images; the others are classified as they are, or purified with less noise.

    The decision is that of the deployed defense, so it has no gradient; an adaptive attack keeps the score below the
    threshold (`detector` of `bench:apgd`).

    Args:
        purifier: of suspected images.
        guard: decides which images are suspected.
        level: None: the others stay as they are; else they are purified too, with `sigma` of the purifier times
            `level` (ADP's dec_level), in [0, 1).

    Raises:
        UserError: a random detector, a level out of range, or a level for a purifier without sigma.
    """

    def __init__(self, purifier: Purifier, guard: Guard, *, level: float | None = None):
        super().__init__()
        if guard.detector.stochastic:
            raise UserError(f"{type(guard.detector).__name__} is random, and cannot tell what is to be purified")
        check_numbers(**({} if level is None else {"level": level}))
        if level is not None and not 0 <= level < 1:
            raise UserError(f"level is {level}; it must be at least 0 and less than 1")
        if level is not None and not hasattr(purifier, "sigma"):
            name = type(purifier).__name__
            raise UserError(f"level asks for a purifier with a sigma, and {name} has none; leave it out")
        self.purifier, self.guard, self.level = purifier, guard, level
        self.differentiable, self.holds_image = purifier.differentiable, purifier.holds_image

    @property
    def steps(self) -> int:  # type: ignore[override]
        """Return the number of steps of the purifier."""
        return self.purifier.steps

    @property
    def paths(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the paths of the purifier, as "purifier.score"."""
        return tuple(f"purifier.{path}" for path in self.purifier.paths)

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return the draws of the purifier."""
        return self.purifier.noise(shape)

    def cost_modules(self) -> list[nn.Module]:
        """Return the networks of purifier and detector; the classifier's passes count in the defense."""
        return [*self.purifier.cost_modules(), *self.guard.detector.cost_modules()]

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Return the purifier's start, with the mask of suspected images and the images in the state."""
        suspect = self.suspects(x)
        state, ctx = self.purifier.start(x, z)
        if self.level is not None:
            gentle = shared_copy(self.purifier, sigma=self.level * self.purifier.sigma)  # type: ignore[operator]
            draws = z[: len(gentle.noise(tuple(x.shape[1:])).start)]
            pairs = zip((state, ctx), gentle.start(x, draws), strict=True)
            state, ctx = (_select_rows(suspect, *pair) for pair in pairs)
        return {"suspect": suspect, "x": x, **_prefixed(state)}, _prefixed(ctx)

    @torch.no_grad()
    def suspects(self, x: Tensor) -> Tensor:
        """Return a mask, bool [B], of suspected images among images [B, C, H, W]."""
        return self.guard.excess(x.detach(), Noise.of(0, len(x), x.device)) > 0

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Make one step of the purifier."""
        new = self.purifier.step(_inner(state), _inner(ctx), k, z)
        return {"suspect": state["suspect"], "x": state["x"], **_prefixed(new)}

    def done(self, state: State) -> Tensor | None:
        """Return a mask of images that are not suspected or that the purifier is done with."""
        done = self.purifier.done(_inner(state))
        if self.level is not None:
            return done
        return ~state["suspect"] if done is None else done | ~state["suspect"]

    def finish(self, state: State, ctx: State) -> Tensor:
        """Return purified images for suspected ones, and the others as they are or purified with less noise."""
        inner, constant = _inner(state), _inner(ctx)
        if self.level is not None:
            return self.purifier.finish(inner, constant)
        rows = torch.nonzero(state["suspect"]).squeeze(1)  # states of the others may be unfinished
        if not len(rows):
            return state["x"]
        image = self.purifier.finish(*({n: v[rows] for n, v in s.items()} for s in (inner, constant)))
        return state["x"].index_put((rows,), image.to(state["x"]))

    def shortened(self, steps: int) -> Gated:
        """Return the gated first steps of the purifier; see `Purifier`."""
        return shared_copy(self, purifier=self.purifier.shortened(steps))

    def surrogate(self, steps: int | None = None) -> Gated | None:
        """Return the gated surrogate; see `Purifier`."""
        return self._with(self.purifier.surrogate() if steps is None else self.purifier.surrogate(steps))

    def bridged(self) -> Gated | None:
        """Return the gated bridged purifier; images that are not suspected keep exact gradients. See `Purifier`."""
        return self._with(self.purifier.bridged())

    def smoothed(self, width: float | None = None) -> Gated | None:
        """Return the gated smoothed purifier; see `Purifier`."""
        return self._with(self.purifier.smoothed() if width is None else self.purifier.smoothed(width))

    def differenced(self, scale: float | None = None) -> Gated | None:
        """Return the gated differenced purifier; see `Purifier`."""
        return self._with(self.purifier.differenced() if scale is None else self.purifier.differenced(scale))

    def one_step(self) -> Callable[[State, State], State] | None:
        """Return one step of the purifier as a denoiser; see `Purifier`."""
        step = self.purifier.one_step()
        if step is None:
            return None
        return lambda state, ctx: {**state, **_prefixed(step(_inner(state), _inner(ctx)))}

    @torch.no_grad()
    def with_median_threshold(self, x: Tensor) -> Gated:
        """Return the purifier with a threshold below the scores of at least half of some images.

        The threshold lies in the middle of the widest gap between scores, so that small changes of an image do not
        cross it. If the scores are equal, it lies below all of them.

        Args:
            x: images [B, C, H, W] in [0, 1].
        """
        scores = self.guard.scores(x, Noise.of(0, len(x), x.device)).sort().values
        gaps = scores.diff()[: len(x) // 2].tolist()
        widest = max(gaps, default=0.0)
        distinct = widest > _MIN_GAP * self.guard.scale
        threshold = float(scores[gaps.index(widest)]) + widest / 2 if distinct else -math.inf
        return shared_copy(self, guard=shared_copy(self.guard, threshold=threshold))

    def straightened(self) -> Gated:
        """Return the gated straightened purifier; see `Purifier`."""
        return shared_copy(self, purifier=self.purifier.straightened())

    def backward_network(self) -> Callable[[Tensor], Tensor] | None:
        """Return the purifier's network for suspected images, with the identity for the others."""
        network = self.purifier.backward_network()
        if network is None or self.level is not None:
            return network
        return lambda x: torch.where(self.suspects(x).view(-1, 1, 1, 1), network(x), x)

    def score_direction(self) -> Callable[[Tensor], Tensor] | None:
        """Return the score direction of the purifier."""
        return self.purifier.score_direction()

    def _with(self, purifier: Purifier | None) -> Gated | None:
        if purifier is None:
            return None
        return shared_copy(self, purifier=purifier, differentiable=purifier.differentiable)


def _prefixed(state: State) -> State:
    return {f"{_PREFIX}{name}": value for name, value in state.items()}


def _inner(state: State) -> State:
    """Return the purifier's state."""
    return {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}


def _select_rows(rows: Tensor, first: State, second: State) -> State:
    """Return a state with rows of the first where a mask is true, and of the second elsewhere."""
    return {n: torch.where(rows.view(-1, *[1] * (v.dim() - 1)), v, second[n]) for n, v in first.items()}
