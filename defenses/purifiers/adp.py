"""ADP: adversarial purification with score-based models (Yoon, Hwang & Lee 2021, arXiv 2106.06041)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from defenses.core.noise import Draw, Kind
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.networks.registry import NetworkLoader
from defenses.utils.errors import UserError, check_numbers, check_whole

_ALPHA = (1e-5, 1e-1)  # the release clamps the step size to this range
# The release maps pixels to the centres of 256 grey levels before its network.
_GRID, _SHIFT = 255 / 256, 1 / 512
_LOW, _HIGH = _SHIFT, _SHIFT + _GRID
_KINDS: dict[str, Kind] = {"normal": "normal", "binary": "rademacher"}


class ADP(Purifier):
    """Noise injection, then steps along the score with a step size for every image.

    With g = f(u): gamma = <g, f(u + delta g)> / <g, g>, alpha = clamp(lam delta / (1 - gamma), 1e-5, .1). An image
    with alpha at most tau stops for good; the others go to clamp(u + alpha g).

    Every operation is differentiable, the step size included, so autograd through the steps gives exact gradients.

    Args:
        score: score network, images [B, C, H, W] in [0, 1] -> f, without a division by sigma.
        sigma: standard deviation of the injected noise, in pixels of [0, 1].
        steps: T, upper bound on the steps.
        lam: target step size, as a fraction of a Newton step along g.
        delta: length of the probe, relative to g.
        tau: step size at which an image stops.
        faithful: reproduce the release, which maps pixels to the grid once and back after every step, so that the
            contrast about 0.5 grows by 256/255 a step, also for images that have stopped. By default the image is
            mapped back once, after the last step.
        noise_kind: "normal", or "binary" for +-sigma sqrt(2/pi).

    Raises:
        UserError: a value out of range.
    """

    paths = ("score", "step_size")

    def __init__(
        self,
        score: nn.Module,
        *,
        sigma: float = 0.25,
        steps: int = 10,
        lam: float = 0.05,
        delta: float = 1e-3,
        tau: float = 1e-3,
        faithful: bool = False,
        noise_kind: Literal["normal", "binary"] = "normal",
    ):
        super().__init__()
        check_whole(0, steps=steps)
        check_numbers(sigma=sigma, tau=tau, lam=lam, delta=delta)
        for name, value in (("sigma", sigma), ("tau", tau)):
            if value < 0:
                raise UserError(f"{name} is {value}; it must be at least 0")
        if lam <= 0 or delta <= 0:
            raise UserError(f"lam is {lam} and delta {delta}; both must be positive")
        if noise_kind not in _KINDS:
            raise UserError(f'noise_kind is "{noise_kind}"; it must be "normal" or "binary"')
        self.score = score
        self.sigma, self.steps, self.lam, self.delta, self.tau = sigma, steps, lam, delta, tau
        self.faithful, self.noise_kind = faithful, noise_kind

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return one draw before the first step; none if sigma is 0."""
        return NoiseSpec(start=(Draw(shape, _KINDS[self.noise_kind]),) if self.sigma else ())

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Add noise, clamp, and map to the grid."""
        if self.sigma:
            scale = self.sigma * (math.sqrt(2 / math.pi) if self.noise_kind == "binary" else 1)
            x = (x + scale * z[0]).clamp(0, 1)
        return {"u": x * _GRID + _SHIFT, "alive": torch.ones(len(x), dtype=torch.bool, device=x.device)}, {}

    def step_size(self, u: Tensor, g: Tensor) -> Tensor:
        """Return the step size alpha [B] at u [B, C, H, W] with g = f(u)."""
        # 1 - gamma from the difference itself: f(u) and f(u + delta g) agree in their leading digits.
        flat = g.flatten(1)
        change = (g - self.score(u + self.delta * g)).flatten(1)
        gap = (flat * change).sum(1) / (flat * flat).sum(1).clamp_min(torch.finfo(g.dtype).tiny)
        # lam delta / gap, clamped; gamma > 1 gives a negative quotient and so the smallest step.
        small, large = (self.lam * self.delta / a for a in reversed(_ALPHA))
        gap = torch.where(gap < 0, gap.new_tensor(large), gap).clamp(small, large)
        return self.lam * self.delta / gap

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Make one step along the score; see the class."""
        u = state["u"]
        g = self.score(u)
        alpha = self.step_size(u, g)
        alive = state["alive"] & (alpha.detach() > self.tau)
        moved = u + (alpha * alive).view(-1, *[1] * (u.dim() - 1)) * g
        if self.faithful:
            return {"u": ((moved - _SHIFT) / _GRID).clamp(0, 1), "alive": alive}
        return {"u": moved.clamp(_LOW, _HIGH), "alive": alive}

    def done(self, state: State) -> Tensor | None:
        """Return images whose step size has fallen to tau; None under `faithful`, which still changes these."""
        return None if self.faithful else ~state["alive"]

    def finish(self, state: State, ctx: State) -> Tensor:
        """Map back from the grid."""
        if self.faithful and self.steps:
            return state["u"]
        return (state["u"] - _SHIFT) / _GRID

    def cost_modules(self) -> list[nn.Module]:
        """Return the score network."""
        return [self.score]

    def one_step(self) -> Callable[[State, State], State]:
        """Return the step to u + sigma f(u), the release's one-step variant: f is about -E[z | u]."""
        return lambda state, _: {**state, "u": state["u"] + self.sigma * self.score(state["u"])}

    def score_direction(self) -> Callable[[Tensor], Tensor]:
        """Return the score network, on images mapped to the grid."""
        return lambda x: self.score(x * _GRID + _SHIFT)


def build(network: NetworkLoader, **parameters: Any) -> ADP:
    """Return ADP with its trained network.

    Args:
        network: function from a name to the trained network.
        **parameters: see `ADP`.
    """
    return ADP(network("adp", "score network"), **parameters)
