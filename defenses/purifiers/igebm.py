"""IGEBM: implicit generation with energies (Du & Mordatch, NeurIPS 2019, arXiv 1903.08689), as a purifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.core.smooth_activations import Differenced, smooth
from defenses.networks.registry import Trained
from defenses.purifiers.langevin import EnergyGradient
from defenses.utils.errors import UserError, check_numbers, check_whole
from defenses.utils.modules import shared_copy


class ClippedLangevin(Purifier):
    """u <- u + noise Z, then u <- clamp(u - rate clip(grad f(u), -clip, clip), 0, 1), in [0, 1].

    No Langevin dynamics at any temperature: gradient, noise and clamp do not belong together, so nothing is known of
    long chains. The derivative is 0 along pixels whose gradient is clipped or that are clamped.

    Args:
        energy: energy network, images in [0, 1] -> f [B].
        steps: number of steps.
        rate: factor of the gradient.
        clip: the most that a pixel's gradient counts.
        noise: standard deviation of the noise of a step.
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
        """One normal draw a step; none where there is no noise."""
        return NoiseSpec(step=(Draw(shape),) if self.scale else ())

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:  # noqa: ARG002
        """The image."""
        return {"u": x}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:  # noqa: ARG002
        """One step; see the class."""
        u = state["u"]
        if self.scale:
            u = torch.add(u, z[0].to(u.dtype), alpha=self.scale)
        slope = self.gradient(u).clamp(-self.clip, self.clip)
        return {"u": torch.sub(u, slope, alpha=self.rate).clamp(0, 1)}

    def finish(self, state: State, ctx: State) -> Tensor:  # noqa: ARG002
        """The image."""
        return state["u"]

    def cost_modules(self) -> list[nn.Module]:
        """The networks whose calls cost."""
        return [self.gradient]

    def one_step(self) -> Callable[[State, State], State]:
        """To u - rate grad f(u), neither clipped nor clamped."""
        return lambda state, _: {"u": state["u"] - self.rate * self.gradient(state["u"])}

    def score_direction(self) -> Callable[[Tensor], Tensor]:
        """Down the energy: -grad f."""
        return lambda x: -self.gradient(x)

    def smoothed(self, width: float | None = None) -> ClippedLangevin | None:
        """With smooth activations, where the energy has (Leaky)ReLU, of the width of a step's noise unless told."""
        energy = smooth(self.gradient.energy, (self.scale or 0.005) if width is None else width)
        if energy is self.gradient.energy:
            return None
        return shared_copy(self, gradient=shared_copy(self.gradient, energy=energy))

    def differenced(self, scale: float | None = None) -> ClippedLangevin:
        """With grad f differentiated at the distance that a step may go, rate * clip a value, unless told."""
        return shared_copy(self, gradient=Differenced(self.gradient, self.rate * self.clip if scale is None else scale))


def build(network: Trained, **own: Any) -> ClippedLangevin:
    """Steps down the trained energy.

    Args:
        network: gives the trained network of a name.
        **own: see `ClippedLangevin`.
    """
    return ClippedLangevin(network("igebm", "energy of images in [0, 1]"), **own)
