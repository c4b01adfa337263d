"""A purifier with every path that a gradient can take, and small networks."""

import torch
from torch import nn

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier


class Everything(Purifier):
    """All paths that a gradient can take: start noise, step noise, context, a step size of each row's own, a stop."""

    def __init__(self, steps: int = 7, layer: nn.Module | None = None):
        super().__init__()
        self.steps = steps
        self.layer = nn.Conv2d(1, 1, 3, padding=1) if layer is None else layer

    def noise(self, shape):
        return NoiseSpec(start=(Draw(shape),), step=(Draw(shape), Draw((1,), "uniform")))

    def start(self, x, z):
        left = 3 + (10 * x.detach().flatten(1).sum(1)).long() % 3
        return {"u": x + 0.1 * z[0], "left": left}, {"guide": x.sin()}

    def step(self, state, ctx, k, z):
        u = state["u"]
        size = (0.05 + z[1].view(-1) * u.flatten(1).norm(dim=1).tanh()).view(-1, 1, 1, 1)
        u = u + size * torch.tanh(self.layer(u)) + 0.1 * (ctx["guide"] - u) * (k + 1) + 0.01 * z[0]
        return {"u": u, "left": state["left"] - 1}

    def done(self, state):
        return state["left"] <= 0

    def finish(self, state, ctx):
        return state["u"] * 0.9 + 0.1 * ctx["guide"]


def layers(size, act):
    """Layers from images to images: an MLP, a small convolution, or a deeper one."""
    torch.manual_seed(0)
    if size == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 32), act(), nn.Linear(32, 36), nn.Unflatten(1, (1, 6, 6)))
    if size == "conv":
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), act(), nn.Conv2d(4, 1, 3, padding=1))
    inner = [nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.GroupNorm(4, 32), act()) for _ in range(6)]
    return nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), act(), *inner, nn.Conv2d(32, 1, 3, padding=1))


class Denoiser(nn.Module):
    """A deep network that leads to grey, as a score leads somewhere: its steps do not stop at once."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, u):
        return 0.5 - u + 0.1 * self.inner(u)


def net(size="conv", act=nn.SiLU):
    """A score in three sizes."""
    return Denoiser(layers(size, act)) if size == "resnet" else layers(size, act)


def energy(size="mlp", act=nn.SiLU):
    """An energy in three sizes."""
    if size == "mlp":
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), act(), nn.Linear(16, 1), nn.Flatten(0))
    return nn.Sequential(layers(size, act), nn.Flatten(), nn.Linear(36, 1), nn.Flatten(0))


X = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))
