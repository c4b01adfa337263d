"""IGEBM: implicit generation with energies (Du & Mordatch, NeurIPS 2019, arXiv 1903.08689), as a purifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.core.smooth_activations import Differenced, smooth
from defenses.networks.registry import NetworkLoader
from defenses.purifiers.langevin import EnergyGradient
from defenses.utils.errors import UserError, check_numbers, check_whole
from defenses.utils.modules import shared_copy


class ClippedLangevin(Purifier):
    """u <- u + noise Z, then u <- clamp(u - rate clip(grad f(u), -clip, clip), 0, 1), in [0, 1].

    These are no Langevin dynamics of any temperature: gradient, noise and clamp do not match, so the stationary law is
    unknown. The derivative is 0 along pixels with clipped gradients and along clamped pixels.

    Args:
        energy: energy network, images in [0, 1] -> f [B].
        steps: number of steps.
        rate: factor of the gradient.
        clip: upper bound on the gradient of a pixel.
        noise: standard deviation of the noise of a step.

    Raises:
        UserError: a value out of range.
    """

    paths = ("gradient",)

    def __init__(
        self, energy: nn.Module, *, steps: int = 60, rate: float = 10.0, clip: float = 0.01, noise: float = 0.005
    ):
        super().__init__()
        check_whole(0, steps=steps)
        check_numbers(rate=rate, clip=clip, noise=noise)
        if rate <= 0 or clip <= 0 or noise < 0:
            raise UserError(
                f"rate is {rate}, clip {clip} and noise {noise}; rate and clip must be positive, noise at least 0"
            )
        self.gradient = EnergyGradient(energy)
        self.steps, self.rate, self.clip, self.scale = steps, rate, clip, noise

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return one normal draw for every step; none if the noise is 0."""
        return NoiseSpec(step=(Draw(shape),) if self.scale else ())

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Return the image as the state."""
        return {"u": x}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Make one step; see the class."""
        u = state["u"]
        if self.scale:
            u = torch.add(u, z[0].to(u.dtype), alpha=self.scale)
        slope = self.gradient(u).clamp(-self.clip, self.clip)
        return {"u": torch.sub(u, slope, alpha=self.rate).clamp(0, 1)}

    def finish(self, state: State, ctx: State) -> Tensor:
        """Return the image."""
        return state["u"]

    def cost_modules(self) -> list[nn.Module]:
        """Return the gradient of the energy."""
        return [self.gradient]

    def one_step(self) -> Callable[[State, State], State]:
        """Return the step to u - rate grad f(u), neither clipped nor clamped."""
        return lambda state, _: {"u": state["u"] - self.rate * self.gradient(state["u"])}

    def score_direction(self) -> Callable[[Tensor], Tensor]:
        """Return the descent direction of the energy, -grad f."""
        return lambda x: -self.gradient(x)

    def smoothed(self, width: float | None = None) -> ClippedLangevin | None:
        """Return the purifier with smooth activations; None without (Leaky)ReLU. Default width: the noise of a step."""
        energy = smooth(self.gradient.energy, (self.scale or 0.005) if width is None else width)
        if energy is self.gradient.energy:
            return None
        return shared_copy(self, gradient=shared_copy(self.gradient, energy=energy))

    def differenced(self, scale: float | None = None) -> ClippedLangevin:
        """Return the purifier with grad f differentiated at a finite scale; default: a step's bound, rate * clip."""
        return shared_copy(self, gradient=Differenced(self.gradient, self.rate * self.clip if scale is None else scale))


def build(network: NetworkLoader, **parameters: Any) -> ClippedLangevin:
    """Return IGEBM's purifier with its trained energy.

    Args:
        network: function from a name to the trained network.
        **parameters: see `ClippedLangevin`.
    """
    return ClippedLangevin(network("igebm", "energy of images in [0, 1]"), **parameters)
