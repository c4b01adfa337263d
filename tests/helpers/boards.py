"""Boards and models for tests that need no trained network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

MODELS = '''
import torch
from torch import nn
from defenses.core.defense import Classifier, Purified
from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier


def linear(seed=0, k=10):
    """A linear classifier of digits; the nearest class mean."""
    from defenses.data.dataset import load_dataset
    train = load_dataset("digits", "train")
    means = torch.stack([train.x[train.y == c].mean(0).flatten() for c in range(k)])
    layer = nn.Linear(64, k)
    layer.weight.data = 10 * means
    layer.bias.data = -5 * means.square().sum(1)
    return nn.Sequential(nn.Flatten(), layer).eval()


class GlobalNoise(nn.Module):
    """Uses the global generator."""

    def __init__(self):
        super().__init__()
        self.inner = linear()
        self.eval()

    def forward(self, x):
        return self.inner(x + 0.5 * torch.randn_like(x))


class Jitter(Purifier):
    """One step: add noise."""

    steps = 1

    def noise(self, shape):
        return NoiseSpec(start=(Draw(shape),))

    def start(self, x, z):
        return {"u": x + 0.3 * z[0]}, {}

    def step(self, state, ctx, k, z):
        return {"u": state["u"] * 1.0}

    def finish(self, state, ctx):
        return state["u"]


def noisy():
    return Purified(Jitter(), Classifier(linear(), num_classes=10, input_shape=(1, 8, 8)), runs=2)


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = linear()
        self.eval()

    def forward(self, x):
        return self.inner(x).softmax(1)


class NotANumber(Probabilities):
    def forward(self, x):
        return self.inner(x) * float("nan")


class BatchNorm(Probabilities):
    def forward(self, x):
        z = self.inner(x)
        return z - z.mean(0)


class Tuple(Probabilities):
    def forward(self, x):
        return self.inner(x), x


class Training(Probabilities):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.train()

    def forward(self, x):
        return self.drop(self.inner(x))


class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 10)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.eval()

    def forward(self, x):
        return self.layer(x.flatten(1))


def unseeded():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def five():
    return linear(k=5)


def slow(view, x, y, *, threat, seconds=0.2, **_):
    """An attack: one sign step, taking its time."""
    import time

    time.sleep(seconds)
    v = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(view(v), y).backward()
    return (x + float(threat.eps) * v.grad.sign()).clamp(0, 1)


def raises(view, x, y, **_):
    raise RuntimeError("the attack broke\\nsecond line")


def nan(view, x, y, **_):
    out = x.clone()
    out[0] = float("nan")
    return out


def leaves(view, x, y, *, threat, **_):
    return (x + 1.5 * float(threat.eps)).clamp(0, 1)


def outside(view, x, y, *, threat, **_):
    return x + float(threat.eps)


def wrong_shape(view, x, y, **_):
    return x[:, :, :4]


def still(view, x, y, **_):
    """Asks nothing, changes nothing."""
    return x.clone()


def spoils(view, x, y, **_):
    """Writes into what it was given."""
    x.zero_()
    return x
'''

BOARD = """
name = "small"
dataset = "digits"
indices = "first-60"
block = 20

[threat]
norm = "Linf"
eps = "1/10"

[verdict]
draws = 5
selection = 3

[[defense]]
name = "{models}:linear"
label = "linear"

[[defense]]
name = "{models}:noisy"
label = "noisy"

[[attack]]
name = "{models}:slow"
label = "slow"
params = {{ seconds = {seconds} }}
views = [{{ eot = 2 }}]

[[attack]]
name = "autoattack:apgd-ce"
params = {{ n_iter = 3 }}
"""


def write_board(folder: Path, text: str = BOARD, seconds: float = 0.0) -> Path:
    """A board file and its models in `folder`."""
    models = folder / "models.py"
    models.write_text(MODELS)
    path = folder / "small.toml"
    path.write_text(text.format(models=models, seconds=seconds))
    return path


def purebench(*arguments: object, cwd: Path = ROOT, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, **kwargs)


def purebench_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which has imported torch already."""
    import contextlib
    import io

    from bench.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(a) for a in arguments])
    return subprocess.CompletedProcess([], code, out.getvalue(), err.getvalue())
