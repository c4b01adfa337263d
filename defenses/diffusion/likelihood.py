"""Log-likelihood of images under a score SDE, by the instantaneous change of variables (Song et al. 2021, section 4.3).

The probability-flow ODE dx/dt = f~(x, t) carries data at time 0 to normal noise at time 1, so that
log p_0(x_0) = log p_1(x_1) + int div f~ dt. Hutchinson's estimator gives the divergence: e' (df~/dx) e, with a random
sign e for every pixel that stays the same through the whole solve.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from defenses.diffusion.purifiers import FlowODE
from defenses.diffusion.sde import START
from defenses.errors import UserError
from defenses.noise import Draw, Noise

_DEQUANTISE, _PROBE = 0, 1  # names of the noise streams


def dequantised(x: Tensor, noise: Noise, levels: int = 256) -> Tensor:
    """Images of whole grey levels, spread over the unit of their level: ((levels - 1) x + u) / levels, u uniform.

    Args:
        x: images [B, C, H, W] in [0, 1].
        noise: B streams.
        levels: grey levels of the data.

    Returns:
        Images in [0, 1).
    """
    return ((levels - 1) * x + noise.child(_DEQUANTISE).draw(Draw(tuple(x.shape[1:]), "uniform")).to(x.dtype)) / levels


def log_likelihood(
    network: nn.Module, x: Tensor, noise: Noise, *, probes: int = 1, tolerance: float = 1e-5, steps: int | None = None
) -> Tensor:
    """The log-density log p(x) in nats, of images as points of [0, 1]^D.

    Args:
        network: noise predictor with its SDE as attribute `sde`.
        x: images [B, C, H, W] in [0, 1], dequantised.
        noise: B streams, for the probes.
        probes: Hutchinson's probes, averaged.
        tolerance: rtol and atol of Dormand and Prince's RK45. Its steps are those of the whole batch, so a value
            depends on its company to about the tolerance.
        steps: fixed steps of fourth order (torchdiffeq's rk4) instead, geometric in time: no image depends on another.

    Returns:
        [B], no gradient.

    Raises:
        UserError: no probes or steps, or a network without an SDE.
    """
    from torchdiffeq import odeint

    if probes < 1 or (steps is not None and steps < 1):
        raise UserError(f"probes is {probes} and steps {steps}; both must be at least 1")
    flow = FlowODE(network, t_star=1.0, steps=1)
    u = flow.sde.encode(x)
    signs = [noise.child(_PROBE, i).draw(Draw(tuple(x.shape[1:]), "rademacher")).to(x.dtype) for i in range(probes)]

    def slope(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        at = state[0].detach().requires_grad_()
        with torch.enable_grad():
            velocity = flow.velocity(at, float(t))
            pulls = [torch.autograd.grad(velocity, at, e, retain_graph=True)[0] for e in signs]
        divergence = torch.stack([(p * e).flatten(1).sum(1) for p, e in zip(pulls, signs, strict=True)]).mean(0)
        return velocity.detach(), divergence

    # Steps grow with the time: pixels that hardly vary in the data make the flow as stiff as 1/t.
    times = torch.logspace(math.log10(START), 0, 2 if steps is None else steps + 1, dtype=x.dtype, device=x.device)
    options = {"method": "dopri5", "rtol": tolerance, "atol": tolerance} if steps is None else {"method": "rk4"}
    with torch.no_grad():
        ends, gained = odeint(slope, (u, u.new_zeros(len(u))), times, **options)
        pixels, scale = x[0].numel(), flow.sde.prior_std
        square = (ends[-1] / scale).square().flatten(1).sum(1)
        prior = -(square + pixels * math.log(2 * math.pi * scale**2)) / 2
        return prior + gained[-1] + pixels * math.log(_volume(flow))  # type: ignore[no-any-return]


def _volume(flow: FlowODE) -> float:
    """How much a unit of a pixel grows on its way to the SDE's data."""
    ends = flow.sde.encode(torch.tensor([0.0, 1.0]))
    return float(ends[1] - ends[0])


def bits_per_dim(log_density: Tensor, pixels: int, levels: int = 256) -> Tensor:
    """Bits a value from log-densities of dequantised images in [0, 1]; the upper bound that papers report.

    Args:
        log_density: [B] in nats.
        pixels: values of an image, C * H * W.
        levels: grey levels of the data.
    """
    return -log_density / (pixels * math.log(2)) + math.log2(levels)
