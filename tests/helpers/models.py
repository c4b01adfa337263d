"""Small models whose behaviour is known, for the tests of views, suites and everything above them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.core.defense import Classifier
from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State

SHAPE = (1, 8, 8)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal values that depend on `seed` alone, and touch no global generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """Logits W x + b of the flat image."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


class Net(nn.Module):
    """A small smooth convolutional network with fixed random weights."""

    def __init__(self, classes: int = 10, channels: int = 1, seed: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(128, classes)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                fan_in = p[0].numel() if p.dim() > 1 else 50
                p.copy_(seeded(*p.shape, seed=seed + i) * (2 / fan_in) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.nn.functional.silu(self.conv(4 * x - 2)).flatten(1))  # type: ignore[no-any-return]


class AddNoise(Purifier):
    """One noisy step: x + sigma z."""

    steps = 1

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        return NoiseSpec(step=(Draw(shape),))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        return {"x": x}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        return {"x": state["x"] + self.sigma * z[0]}

    def finish(self, state: State, ctx: State) -> Tensor:
        return state["x"]


class Squash(Purifier):
    """A deterministic purifier with a gradient that is not the identity: x^2 in each of its steps."""

    def __init__(self, steps: int = 2):
        super().__init__()
        self.steps = steps

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        return {"x": x}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        return {"x": state["x"] ** 2}

    def finish(self, state: State, ctx: State) -> Tensor:
        return state["x"]


def classifier(classes: int = 10, channels: int = 1, seed: int = 0) -> Classifier:
    """`Net` as a defense."""
    shape = (channels, *SHAPE[1:])
    return Classifier(Net(classes, channels, seed), num_classes=classes, input_shape=shape)


def images(n: int = 12, channels: int = 1, seed: int = 1) -> Tensor:
    """Random images, some pixels at exactly 0 and 1 as in digits."""
    return (seeded(n, channels, *SHAPE[1:], seed=seed) * 0.4 + 0.5).clamp(0, 1)


def labels_of(defense: Classifier, x: Tensor) -> Tensor:
    """What the network says, so that every image starts out correct."""
    with torch.no_grad():
        return defense.network(x).argmax(1)  # type: ignore[no-any-return]
