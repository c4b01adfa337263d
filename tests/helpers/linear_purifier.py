"""Purifiers whose Jacobians are known, before a linear classifier: for the tests of gradient modes."""

import torch
from torch import nn

from defenses.core.defense import Classifier, Purified
from defenses.core.noise import Draw, Noise
from defenses.core.purifier import NoiseSpec, Purifier

D, CLASSES, B = 36, 4, 5
SHAPE = (1, 6, 6)


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = values(B, *SHAPE, seed=1).mul(0.2).add(0.5).clamp(0, 1)


class Shift(Purifier):
    """Adds sigma z: a linear classifier behind it errs exactly where w (x + sigma z) + b has the wrong sign."""

    steps = 1

    def __init__(self, sigma):
        super().__init__()
        self.sigma = sigma

    def noise(self, shape):
        return NoiseSpec(start=(Draw(shape),))

    def start(self, x, z):
        return {"u": x + self.sigma * z[0]}, {}

    def step(self, state, ctx, k, z):
        return state

    def finish(self, state, ctx):
        return state["u"]


class Affine(Purifier):
    """Linear and Gaussian: every Jacobian is known. u = 1.5 x + .1 z; u <- A u + .05 z; .5 u + .1."""

    def __init__(self, steps=8):
        super().__init__()
        self.steps = steps
        self.matrix = torch.eye(D) * 0.9 + 0.03 * values(D, D, seed=5)
        self.single = torch.eye(D) * 0.5 + 0.1 * values(D, D, seed=6)

    def noise(self, shape):
        return NoiseSpec(start=(Draw(shape),), step=(Draw(shape),))

    def start(self, x, z):
        return {"u": 1.5 * x + 0.1 * z[0], "n": torch.zeros(len(x), dtype=torch.int64)}, {}

    def step(self, state, ctx, k, z):
        return {"u": times(self.matrix, state["u"]) + 0.05 * z[0], "n": state["n"] + 1}

    def finish(self, state, ctx):
        return 0.5 * state["u"] + 0.1

    def one_step(self):
        return lambda state, ctx: {**state, "u": times(self.single, state["u"])}

    def score_direction(self):
        return lambda x: 0.5 - x


class Triple(nn.Module):
    def forward(self, x):
        return 3 * x


def times(matrix, u):
    return (u.flatten(1) @ matrix.T).view_as(u)


def linear():
    network = nn.Sequential(nn.Flatten(), nn.Linear(D, CLASSES, bias=False)).requires_grad_(False)
    network[1].weight.copy_(values(CLASSES, D, seed=2))
    return Classifier(network, num_classes=CLASSES, input_shape=SHAPE)


def affine(runs=3, **options):
    return Purified(Affine(), linear(), runs=runs, combine="logit-mean", autoencoder=Triple(), **options)


WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 0.25])


def gradient(defense, mode, x=X, how="grad", **options):
    x = x.clone().requires_grad_()
    logits = defense.logits(x, Noise.of(4, len(x)), gradient=mode, **options)
    loss = (logits * WEIGHTS.to(logits.dtype)).sum() if logits.shape[1] == CLASSES else logits[:, 0].sum()
    if how == "grad":
        return logits.detach(), torch.autograd.grad(loss, x)[0]
    if how == "retain":
        loss.backward(retain_graph=True)
        x.grad = None
    loss.backward()
    return logits.detach(), x.grad


def energy(act, seed=0, dtype=torch.float32):
    layers = [nn.Flatten(), nn.Linear(D, 24), act(), nn.Linear(24, 16), act(), nn.Linear(16, 1), nn.Flatten(0)]
    network = nn.Sequential(*layers).to(dtype)
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p.copy_(values(*p.shape, seed=seed + i) / p.shape[-1] ** 0.5)
    return network.requires_grad_(False)
