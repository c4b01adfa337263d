"""Defense-GAN: the generator's best reconstruction of an image (Samangouei et al., ICLR 2018, arXiv 1805.06605)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.core.smooth_activations import smooth
from defenses.networks.registry import NetworkLoader
from defenses.utils.errors import UserError, check_numbers, check_whole
from defenses.utils.modules import shared_copy

_LATE, _LOWER = 0.8, 0.1  # the learning rate falls to a tenth at 80% of the steps


class GeneratedImages(nn.Module):
    """A generator with images scaled to [0, 1].

    Args:
        generator: latent vectors [N, D] -> images [N, C, H, W] in [-1, 1].
    """

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor) -> Tensor:
        """Map latent vectors [N, D] to images [N, C, H, W] in [0, 1]."""
        return (self.generator(z) + 1) / 2  # type: ignore[no-any-return]


class LatentGradient(nn.Module):
    """The gradient of mean((G(z) - x)^2) at z, differentiable in z and x if they require grad.

    Args:
        images: latent vectors [N, D] -> images [N, C, H, W] in [0, 1].
    """

    unit_forwards = 1
    unit_backwards = 1

    def __init__(self, images: nn.Module):
        super().__init__()
        self.images = images

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Map latent vectors [N, D] and images [N, C, H, W] to gradients [N, D]."""
        differentiable = torch.is_grad_enabled() and (z.requires_grad or x.requires_grad)
        with torch.enable_grad():
            at = z if differentiable and z.requires_grad else z.detach().requires_grad_()
            target = x if differentiable else x.detach()
            loss = _errors(self.images.forward(at), target).sum()
            gradient: Tensor = torch.autograd.grad(loss, at, create_graph=differentiable)[0]
        return gradient


def _errors(images: Tensor, x: Tensor) -> Tensor:
    """Return the mean squared error [N] of every image."""
    return (images - x).square().flatten(1).mean(1)


class DefenseGAN(Purifier):
    """The best of R reconstructions, each by L gradient steps with momentum down mean((G(z) - x)^2).

    v <- momentum v + grad, z <- z - lr v; lr falls to a tenth at 80% of the steps. The image depends on x through
    every step and through the last comparison, whose choice is constant almost everywhere: autograd through the steps
    gives exact gradients. An image costs R L forward and backward passes and R forward ones.

    Args:
        generator: latent vectors [N, D] -> images [N, C, H, W] in [-1, 1], with an attribute `latent` = D.
        restarts: R.
        steps: L.
        lr: learning rate.
        momentum: of the steps.
        variance: of every value of the latent vectors at the start.

    Raises:
        UserError: a value out of range.
    """

    paths = ("gradient", "images")
    holds_image = False

    def __init__(
        self,
        generator: nn.Module,
        *,
        restarts: int = 10,
        steps: int = 200,
        lr: float = 10.0,
        momentum: float = 0.7,
        variance: float = 1 / 128,
    ):
        super().__init__()
        check_whole(1, restarts=restarts)
        check_whole(0, steps=steps)
        check_numbers(lr=lr, variance=variance, momentum=momentum)
        if lr <= 0 or variance <= 0 or not 0 <= momentum < 1:
            raise UserError(
                f"lr is {lr}, variance {variance} and momentum {momentum}; "
                "lr and variance must be positive, momentum in [0, 1)"
            )
        self.latent: int = generator.latent  # type: ignore[assignment]
        self.images = GeneratedImages(generator)
        self.gradient = LatentGradient(self.images)
        self.restarts, self.steps, self.lr, self.momentum = restarts, steps, lr, momentum
        self.variance = variance

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return one draw of a latent vector for every restart."""
        return NoiseSpec(start=(Draw((self.restarts, self.latent)),))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Return latent vectors with velocity 0, and the image as the target."""
        latent = math.sqrt(self.variance) * z[0]
        return {"z": latent, "v": torch.zeros_like(latent)}, {"x": x}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Make one gradient step of all restarts."""
        at = state["z"]
        gradient = self.gradient(at.flatten(0, 1), ctx["x"].repeat_interleave(self.restarts, 0)).view_as(at)
        v = self.momentum * state["v"] + gradient
        rate = self.lr * (_LOWER if k >= math.ceil(_LATE * self.steps) else 1.0)
        return {"z": at - rate * v, "v": v}

    def finish(self, state: State, ctx: State) -> Tensor:
        """Return the image of the restart with the smallest error."""
        x = ctx["x"]
        images = self.images(state["z"].flatten(0, 1))
        errors = _errors(images, x.repeat_interleave(self.restarts, 0)).view(len(x), self.restarts)
        rows = torch.arange(len(x), device=x.device)
        best: Tensor = images.view(len(x), self.restarts, *x.shape[1:])[rows, errors.argmin(1)]
        return best

    def cost_modules(self) -> list[nn.Module]:
        """Return the gradient of the error and the generator."""
        return [self.gradient, self.images]

    def smoothed(self, width: float | None = None) -> DefenseGAN | None:
        """Return the purifier with smooth activations; default width 1/10, as batch norm scales inputs to about 1."""
        generator = smooth(self.images.generator, 0.1 if width is None else width)
        if generator is self.images.generator:
            return None
        images = shared_copy(self.images, generator=generator)
        return shared_copy(self, images=images, gradient=shared_copy(self.gradient, images=images))


def build(network: NetworkLoader, **parameters: Any) -> DefenseGAN:
    """Return Defense-GAN with its trained generator.

    Args:
        network: function from a name to the trained network.
        **parameters: see `DefenseGAN`.
    """
    return DefenseGAN(network("defense-gan", "generator"), **parameters)
