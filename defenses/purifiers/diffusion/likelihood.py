"""Log-likelihood of images under a score SDE, by the instantaneous change of variables (Song et al. 2021, section 4.3).

The probability-flow ODE dx/dt = f~(x, t) maps data at time 0 to normal noise at time 1, so that
log p_0(x_0) = log p_1(x_1) + int div f~ dt. Hutchinson's estimator gives the divergence: e' (df~/dx) e, with one
random sign e per pixel for the whole solve.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from defenses.core.noise import Draw, Noise
from defenses.core.purifier import NoiseSpec, State
from defenses.core.purify import purify
from defenses.core.steps import start
from defenses.networks.sde import START
from defenses.purifiers.diffusion.samplers import FlowODE
from defenses.utils.errors import check_whole

_DEQUANTISE, _PROBE = 0, 1  # names of the noise streams


def dequantised(x: Tensor, noise: Noise, levels: int = 256) -> Tensor:
    """Return images with uniform noise u of one grey level: ((levels - 1) x + u) / levels.

    Args:
        x: images [B, C, H, W] in [0, 1].
        noise: B streams.
        levels: grey levels of the data.

    Returns:
        Images in [0, 1).
    """
    return ((levels - 1) * x + noise.child(_DEQUANTISE).draw(Draw(tuple(x.shape[1:]), "uniform")).to(x.dtype)) / levels


class Flow(FlowODE):
    """The flow from an image to noise, with the integral of its divergence, as steps for `purify`.

    `finish` returns log p(x) [B] in place of a purified image: with exact gradients in bounded memory, and independent
    of the other images. The steps are of fourth order (Runge and Kutta), four calls each. They grow with the time:
    pixels that hardly vary in the data make the flow as stiff as 1/t.

    Args:
        network: noise predictor with its SDE as attribute `sde`.
        steps: number of steps.
        probes: number of Hutchinson's probes, averaged.

    Raises:
        UserError: no probes or steps, or a network without an SDE.
    """

    def __init__(self, network: nn.Module, *, steps: int, probes: int):
        check_whole(1, steps=steps, probes=probes)
        super().__init__(network, t_star=1.0, steps=steps)
        self.probes = probes
        self.times = tuple(START ** (1 - k / steps) for k in range(steps + 1))

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return the signs of all probes, drawn once for the whole solve."""
        return NoiseSpec(start=(Draw(shape, "rademacher"),) * self.probes)

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Return the SDE's data with log-density gain 0, and the signs as the context."""
        u = self.sde.encode(x)
        return {"u": u, "gained": u.new_zeros(len(u))}, {f"sign{i}": sign for i, sign in enumerate(z)}

    def slope(self, u: Tensor, t: float, signs: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (velocity, its divergence [B]) at u and time t."""
        graph = torch.is_grad_enabled() and u.requires_grad
        at = u if graph else u.detach().requires_grad_()
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the others are differentiable once
            velocity = self.velocity(at, t)
            estimates = [
                (torch.autograd.grad(velocity, at, e, retain_graph=True, create_graph=graph)[0] * e).flatten(1).sum(1)
                for e in signs
            ]
        divergence = torch.stack(estimates).mean(0)
        return (velocity, divergence) if graph else (velocity.detach(), divergence.detach())

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Make one Runge-Kutta step to the next time."""
        t, s = self.times[k], self.times[k + 1]
        u, gained, signs, length = state["u"], state["gained"], list(ctx.values()), s - t
        moved, velocity = u, torch.zeros_like(u)
        for reach, weight in ((0.0, 1), (0.5, 2), (0.5, 2), (1.0, 1)):
            velocity, divergence = self.slope(u + reach * length * velocity, t + reach * length, signs)
            moved, gained = moved + weight / 6 * length * velocity, gained + weight / 6 * length * divergence
        return {"u": moved, "gained": gained}

    def finish(self, state: State, ctx: State) -> Tensor:
        """Return log p(x) [B]: the log-density of the noise, the gain, and the change of the pixels' unit."""
        u, scale = state["u"], self.sde.prior_std
        pixels = u[0].numel()
        unit = self.sde.encode(torch.tensor([0.0, 1.0]))
        prior = -((u / scale).square().flatten(1).sum(1) + pixels * math.log(2 * math.pi * scale**2)) / 2
        return prior + state["gained"] + pixels * math.log(float(unit[1] - unit[0]))


def log_likelihood(
    network: nn.Module, x: Tensor, noise: Noise, *, probes: int = 1, tolerance: float = 1e-5, steps: int | None = None
) -> Tensor:
    """Return the log-densities log p(x) in nats, of images as points of [0, 1]^D.

    Args:
        network: noise predictor with its SDE as attribute `sde`.
        x: images [B, C, H, W] in [0, 1], dequantised.
        noise: B streams, for the probes.
        probes: number of Hutchinson's probes, averaged.
        tolerance: rtol and atol of Dormand and Prince's RK45. Its steps are those of the whole batch, so a value
            depends on the other images to about the tolerance; it has no gradient.
        steps: number of fixed steps instead, see `Flow`: images are independent, and gradients exact.

    Returns:
        Log-densities [B].

    Raises:
        UserError: no probes or steps, or a network without an SDE.
    """
    flow, probe_noise = Flow(network, steps=1 if steps is None else steps, probes=probes), noise.child(_PROBE)
    if steps is not None:
        return purify(flow, x, probe_noise)
    from torchdiffeq import odeint

    with torch.no_grad():
        state, ctx = start(flow, x, probe_noise)

        def slope(t: Tensor, at: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return flow.slope(at[0], float(t), ctx.values())

        times = torch.tensor([START, 1.0], dtype=x.dtype, device=x.device)
        ends = odeint(slope, (state["u"], state["gained"]), times, method="dopri5", rtol=tolerance, atol=tolerance)
        return flow.finish({"u": ends[0][-1], "gained": ends[1][-1]}, ctx)


def bits_per_dim(log_density: Tensor, pixels: int, levels: int = 256) -> Tensor:
    """Return bits per dimension of dequantised images in [0, 1]: the upper bound that papers report.

    Args:
        log_density: [B] in nats.
        pixels: number of values of an image, C * H * W.
        levels: grey levels of the data.

    Returns:
        Bits per value [B].
    """
    return -log_density / (pixels * math.log(2)) + math.log2(levels)
