"""EBM-MCMC: Langevin purification by an energy (Hill, Mitchell & Zhu, ICLR 2021, arXiv 2005.13525)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.core.smooth_activations import Differenced, SmoothLeakyReLU, smooth
from defenses.networks.registry import NetworkLoader
from defenses.utils.errors import UserError, check_numbers, check_whole
from defenses.utils.modules import shared_copy


class EnergyGradient(nn.Module):
    """The gradient of an energy network f: images [B, C, H, W] in [-1, 1] -> the same shape.

    A chain of Linear, Conv2d, SiLU, LeakyReLU (smooth or not) and Flatten is differentiated by explicit formulas:
    without a graph if no gradient is needed, else by differentiable operations, so autograd gives exact second-order
    gradients. Any other network falls back to autograd.

    Args:
        energy: the network, images -> f [B].
    """

    unit_forwards = 1
    unit_backwards = 1

    def __init__(self, energy: nn.Module):
        super().__init__()
        self.energy = energy
        self.chain = _is_chain(energy)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to grad f, of the same shape."""
        if not self.chain:
            return self._by_autograd(x)
        layers: list[nn.Module] = list(self.energy.children())
        body, head = layers[:-2], layers[-2]
        inputs = []
        h = x
        for layer in body:
            inputs.append(h)
            h = layer(h)
        v = _pull_head(head, h)
        for layer, at in zip(reversed(body), reversed(inputs), strict=True):
            v = _pull(layer, at, v)
        return v

    def _by_autograd(self, x: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            at = x if differentiable else x.detach().requires_grad_()
            gradient: Tensor = torch.autograd.grad(self.energy(at).sum(), at, create_graph=differentiable)[0]
        return gradient


def _is_chain(energy: nn.Module) -> bool:
    """Return True if `EnergyGradient` has explicit formulas for a network."""
    if not isinstance(energy, nn.Sequential):
        return False
    layers = list(energy)
    plain = all(
        isinstance(m, nn.Linear | nn.SiLU | nn.LeakyReLU | SmoothLeakyReLU | nn.Flatten)
        or (isinstance(m, nn.Conv2d) and m.groups == 1 and m.padding_mode == "zeros" and not isinstance(m.padding, str))
        for m in layers
    )
    # The last layers give one value per image, flattened to [B]: the backward pass starts with ones.
    ends = len(layers) >= 2 and isinstance(layers[-1], nn.Flatten) and isinstance(layers[-2], nn.Linear | nn.Conv2d)
    return plain and ends


def _pull_head(head: nn.Module, at: Tensor) -> Tensor:
    """Return the gradient of the summed output of the last layer at its input, without the output where possible."""
    assert isinstance(head, nn.Linear | nn.Conv2d)
    whole = isinstance(head, nn.Conv2d) and head.kernel_size == tuple(at.shape[2:]) and not any(map(int, head.padding))
    if head.weight.shape[0] == 1 and (whole or isinstance(head, nn.Linear)):
        return head.weight.expand(at.shape)
    out: Tensor = head(at)
    return _pull(head, at, torch.ones_like(out))


def _pull(layer: nn.Module, at: Tensor, v: Tensor) -> Tensor:
    """Return the gradient at a layer's input `at` from the gradient v at its output."""
    if isinstance(layer, nn.Flatten):
        return v.reshape(at.shape)
    if isinstance(layer, nn.Linear):
        return v @ layer.weight
    if isinstance(layer, nn.Conv2d):
        return _pull_conv(layer, at, v)
    if isinstance(layer, nn.SiLU):
        differentiable = torch.is_grad_enabled() and (at.requires_grad or v.requires_grad)
        pulled: Tensor = _SiLUPull.apply(v, at) if differentiable else torch.ops.aten.silu_backward(v, at)
        return pulled
    if isinstance(layer, SmoothLeakyReLU):
        return v * layer.slope(at)
    assert isinstance(layer, nn.LeakyReLU)
    leaky: Tensor = torch.ops.aten.leaky_relu_backward(v, at, layer.negative_slope, False)
    return leaky


class _SiLUPull(torch.autograd.Function):
    """v silu'(at) by the fused kernel, with a derivative: the same bits with a graph and without."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, at: Tensor) -> Tensor:
        ctx.save_for_backward(v, at)
        fused: Tensor = torch.ops.aten.silu_backward(v, at)
        return fused

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (v, at), (g,) = ctx.saved_tensors, grads
        s = torch.sigmoid(at)
        # silu'' = s (1 - s) (2 + x (1 - 2 s)) with s = sigmoid(x).
        return _SiLUPull.apply(g, at), g * v * (s * (1 - s) * (2 + at * (1 - 2 * s)))


def _pull_conv(layer: nn.Conv2d, at: Tensor, v: Tensor) -> Tensor:
    # The image's part of a convolution's backward pass: faster than a transposed convolution, and differentiable.
    # Autocast does not reach it, and CPUs without bfloat16 refuse mixed types; plain float32 is not converted.
    kind = at.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else at.dtype
    parts = torch.ops.aten.convolution_backward(
        v.to(dtype),
        at.to(dtype),
        layer.weight.to(dtype),
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        False,
        [0, 0],
        1,
        [True, False, False],
    )
    image: Tensor = parts[0].to(at.dtype)
    return image


class Langevin(Purifier):
    """Langevin dynamics on an energy: x <- x - (eps^2 / 2T) grad f(x) + eps Z, in [-1, 1], no clamp inside.

    With the temperature T = eps^2 / 2 of training, the drift is grad f itself. Another eps at the same temperature
    rescales the drift; another temperature changes the stationary law.

    Args:
        energy: energy network, images in [-1, 1] -> f [B].
        eps: step size.
        temperature: T; None is eps^2 / 2.
        steps: K.

    Raises:
        UserError: a value out of range.
    """

    paths = ("gradient",)

    def __init__(self, energy: nn.Module, *, eps: float = 0.01, temperature: float | None = None, steps: int = 1500):
        super().__init__()
        check_whole(0, steps=steps)
        scales = {"eps": eps} | ({} if temperature is None else {"temperature": temperature})
        check_numbers(**scales)
        for name, value in scales.items():
            if value <= 0:
                raise UserError(f"{name} is {value}; it must be positive")
        self.gradient = EnergyGradient(energy)
        self.eps, self.steps = eps, steps
        self.temperature = eps**2 / 2 if temperature is None else temperature
        drift = eps**2 / (2 * self.temperature)
        self.drift = 1.0 if abs(drift - 1) < 1e-6 else drift

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return one normal draw for every step."""
        return NoiseSpec(step=(Draw(shape),))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Scale images from [0, 1] to [-1, 1]."""
        return {"u": 2 * x - 1}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Make one step of Langevin dynamics."""
        u = state["u"]
        moved = torch.sub(u, self.gradient(u), alpha=self.drift)
        return {"u": torch.add(moved, z[0].to(u.dtype), alpha=self.eps)}

    def finish(self, state: State, ctx: State) -> Tensor:
        """Scale images back to [0, 1], without a clamp."""
        return (state["u"] + 1) / 2

    def cost_modules(self) -> list[nn.Module]:
        """Return the gradient of the energy."""
        return [self.gradient]

    def one_step(self) -> Callable[[State, State], State]:
        """Return a step without its noise: to u - grad f(u), at the temperature of training."""
        return lambda state, _: {"u": state["u"] - self.drift * self.gradient(state["u"])}

    def score_direction(self) -> Callable[[Tensor], Tensor]:
        """Return the descent direction of the energy, -grad f."""
        return lambda x: -self.gradient(2 * x - 1)

    def smoothed(self, width: float | None = None) -> Langevin | None:
        """Return the purifier with smooth activations; None without (Leaky)ReLU. Default width: eps / 3.

        The noise of a step moves a unit of the first layer by about as much; wider activations average the slopes.
        """
        energy = smooth(self.gradient.energy, self.eps / 3 if width is None else width)
        if energy is self.gradient.energy:
            return None
        return shared_copy(self, gradient=shared_copy(self.gradient, energy=energy, chain=_is_chain(energy)))

    def differenced(self, scale: float | None = None) -> Langevin:
        """Return the purifier with grad f differentiated at a finite scale; default: the noise of a step, eps."""
        return shared_copy(self, gradient=Differenced(self.gradient, self.eps if scale is None else scale))


def build(network: NetworkLoader, *, energy: str = "ebm-mcmc", **parameters: Any) -> Langevin:
    """Return Langevin purification with the trained energy.

    Args:
        network: function from a name to the trained network.
        energy: name of its weights.
        **parameters: see `Langevin`.
    """
    return Langevin(network(energy, "energy of images in [-1, 1]"), **parameters)
