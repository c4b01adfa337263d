"""A purifier with every path that a gradient can take, and small networks."""

import torch
from torch import nn

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier


class Everything(Purifier):
    """All paths that a gradient can take: start noise, step noise, context, a step size of each row's own, a stop."""

    def __init__(self, steps: int = 7):
        super().__init__()
        self.steps = steps
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

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


def net(seed=0, act=nn.SiLU):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), act(), nn.Conv2d(4, 1, 3, padding=1))


def energy(seed=0, act=nn.SiLU):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), act(), nn.Linear(16, 1), nn.Flatten(0))


X = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))
