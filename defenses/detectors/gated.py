"""Detect, then purify: a purifier that leaves images alone which a detector does not suspect (Yoon et al. 2021)."""

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

_MARK = "purifier."  # before the names of the purifier's own state
_APART = 1e-3  # scores that differ by less, in scales of clean images, are alike


class Gated(Purifier):
    """Suspected images are purified; the others are classified as they are, or purified with less noise.

    The switch is as it is deployed, and so without a gradient; an attack that knows of it keeps the score below the
    threshold (`detector` of `bench:apgd`).

    Args:
        purifier: of suspected images.
        guard: tells which these are.
        level: None: the others stay as they are; else they are purified too, with so many times the `sigma` of the
            purifier (ADP's dec_level).

    Raises:
        UserError: the detector is random; or there is a level and the purifier has no sigma.
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
        """Those of the purifier."""
        return self.purifier.steps

    @property
    def paths(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the purifier."""
        return tuple(f"purifier.{path}" for path in self.purifier.paths)

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """That of the purifier."""
        return self.purifier.noise(shape)

    def cost_modules(self) -> list[nn.Module]:
        """The networks of purifier and detector; the classifier stands behind."""
        return [*self.purifier.cost_modules(), *self.guard.detector.cost_modules()]

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Which images are suspected, and their start."""
        suspect = self.suspects(x)
        state, ctx = self.purifier.start(x, z)
        if self.level is not None:
            gentle = shared_copy(self.purifier, sigma=self.level * self.purifier.sigma)  # type: ignore[operator]
            own = z[: len(gentle.noise(tuple(x.shape[1:])).start)]
            state, ctx = (_chosen(suspect, *pair) for pair in zip((state, ctx), gentle.start(x, own), strict=True))
        return {"suspect": suspect, "x": x, **_marked(state)}, _marked(ctx)

    @torch.no_grad()
    def suspects(self, x: Tensor) -> Tensor:
        """Bool [B], which of images [B, C, H, W] are suspected."""
        return self.guard.excess(x.detach(), Noise.of(0, len(x), x.device)) > 0

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """One step of the purifier."""
        new = self.purifier.step(_own(state), _own(ctx), k, z)
        return {"suspect": state["suspect"], "x": state["x"], **_marked(new)}

    def done(self, state: State) -> Tensor | None:
        """Images that are not suspected, and those that the purifier has done with."""
        done = self.purifier.done(_own(state))
        if self.level is not None:
            return done
        return ~state["suspect"] if done is None else done | ~state["suspect"]

    def finish(self, state: State, ctx: State) -> Tensor:
        """Purified images where they are to be."""
        own, constant = _own(state), _own(ctx)
        if self.level is not None:
            return self.purifier.finish(own, constant)
        rows = torch.nonzero(state["suspect"]).squeeze(1)  # of the others a state may be that of no last step
        if not len(rows):
            return state["x"]
        image = self.purifier.finish(*({n: v[rows] for n, v in s.items()} for s in (own, constant)))
        return state["x"].index_put((rows,), image.to(state["x"]))

    def shortened(self, steps: int) -> Gated:
        """See `Purifier`."""
        return shared_copy(self, purifier=self.purifier.shortened(steps))

    def surrogate(self, steps: int | None = None) -> Gated | None:
        """See `Purifier`."""
        return self._with(self.purifier.surrogate() if steps is None else self.purifier.surrogate(steps))

    def bridged(self) -> Gated | None:
        """See `Purifier`; the gradient of images that are left alone is their own."""
        return self._with(self.purifier.bridged())

    def smoothed(self, width: float | None = None) -> Gated | None:
        """See `Purifier`."""
        return self._with(self.purifier.smoothed() if width is None else self.purifier.smoothed(width))

    def differenced(self, scale: float | None = None) -> Gated | None:
        """See `Purifier`."""
        return self._with(self.purifier.differenced() if scale is None else self.purifier.differenced(scale))

    def one_step(self) -> Callable[[State, State], State] | None:
        """See `Purifier`."""
        step = self.purifier.one_step()
        if step is None:
            return None
        return lambda state, ctx: {**state, **_marked(step(_own(state), _own(ctx)))}

    @torch.no_grad()
    def with_median_threshold(self, x: Tensor) -> Gated:
        """With a threshold that half of images [B, C, H, W] exceed, or some more; all, where scores are alike.

        It lies in the middle of the widest gap, so that a small move of an image takes none across it.
        """
        scores = self.guard.scores(x, Noise.of(0, len(x), x.device)).sort().values
        gaps = scores.diff()[: len(x) // 2].tolist()
        widest = max(gaps, default=0.0)
        apart = widest > _APART * self.guard.scale
        threshold = float(scores[gaps.index(widest)]) + widest / 2 if apart else -math.inf
        return shared_copy(self, guard=shared_copy(self.guard, threshold=threshold))

    def straightened(self) -> Gated:
        """See `Purifier`."""
        return shared_copy(self, purifier=self.purifier.straightened())

    def backward_network(self) -> Callable[[Tensor], Tensor] | None:
        """That of the purifier for the images that are purified, and the identity for the others."""
        network = self.purifier.backward_network()
        if network is None or self.level is not None:
            return network
        return lambda x: torch.where(self.suspects(x).view(-1, 1, 1, 1), network(x), x)

    def score_direction(self) -> Callable[[Tensor], Tensor] | None:
        """See `Purifier`."""
        return self.purifier.score_direction()

    def _with(self, purifier: Purifier | None) -> Gated | None:
        if purifier is None:
            return None
        return shared_copy(self, purifier=purifier, differentiable=purifier.differentiable)


def _marked(state: State) -> State:
    return {f"{_MARK}{name}": value for name, value in state.items()}


def _own(state: State) -> State:
    return {name.removeprefix(_MARK): value for name, value in state.items() if name.startswith(_MARK)}


def _chosen(rows: Tensor, first: State, second: State) -> State:
    return {n: torch.where(rows.view(-1, *[1] * (v.dim() - 1)), v, second[n]) for n, v in first.items()}
