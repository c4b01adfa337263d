"""The loop over a purifier's steps, and purification before a classifier."""

import math

import pytest
import torch
from torch import nn

from defenses.core.defense import Classifier, Purified
from defenses.core.noise import Draw, Noise
from defenses.core.purifier import NoiseSpec, Purifier
from defenses.core.purify import purify
from defenses.utils.errors import UserError


class Shrink(Purifier):
    """Halving of images towards ctx, with noise each step; a row is done when its norm falls below a bound."""

    def __init__(self, steps: int = 12, bound: float = 0.0, scale: float = 0.0):
        super().__init__()
        self.steps, self.bound, self.scale = steps, bound, scale
        self.rows_worked = 0

    def noise(self, shape):
        return NoiseSpec(start=(Draw(shape, "uniform"),), step=(Draw(shape),) if self.scale else ())

    def start(self, x, z):
        return {"u": x + 0.1 * z[0], "n": torch.zeros(len(x))}, {"x": x}

    def step(self, state, ctx, k, z):
        self.rows_worked += len(state["u"])
        u = 0.5 * state["u"] + 0.1 * ctx["x"] * (1 + 0.1 * k)
        if z:
            u = u + self.scale * z[0]
        return {"u": u, "n": state["n"] + 1}

    def done(self, state):
        return state["u"].flatten(1).norm(dim=1) < self.bound if self.bound else None

    def finish(self, state, ctx):
        return state["u"] + state["n"].view(-1, 1, 1, 1)


X = torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.05, 1, 9).view(-1, 1, 1, 1)


@pytest.mark.parametrize("scale", [0.0, 0.05])
@pytest.mark.parametrize("bound", [0.0, 0.6, 1e9])
def test_leaving_early_changes_nothing(bound, scale):
    noise = Noise.of(0, len(X))
    leaving = Shrink(bound=bound, scale=scale)
    left = purify(leaving, X, noise)
    frozen = purify(Shrink(bound=bound, scale=scale), X.clone().requires_grad_(), noise)
    assert torch.equal(left, frozen.detach())
    assert not left.requires_grad
    if bound == 0.6:
        assert 0 < leaving.rows_worked < 12 * len(X)


def test_rows_do_not_depend_on_the_batch():
    noise = Noise.of(0, len(X))
    whole = purify(Shrink(bound=0.6, scale=0.05), X, noise)
    rows = torch.tensor([8, 2])
    assert torch.equal(purify(Shrink(bound=0.6, scale=0.05), X[rows], noise.rows(rows)), whole[rows])


def test_segments_of_noise_do_not_change_the_path(monkeypatch):
    noise = Noise.of(0, len(X))
    whole = purify(Shrink(scale=0.05), X, noise)
    monkeypatch.setattr("defenses.core.steps._NOISE_VALUES", 1)
    assert torch.equal(purify(Shrink(scale=0.05), X, noise), whole)


def test_exact_gradient_against_central_differences():
    x = X[:3].double().requires_grad_()
    noise = Noise.of(0, 3)

    def loss(v):
        return (purify(Shrink(scale=0.05), v, noise) ** 2).sum()

    (gradient,) = torch.autograd.grad(loss(x), x)
    probe = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h = 1e-6
    difference = (loss(x.detach() + h * probe) - loss(x.detach() - h * probe)) / (2 * h)
    assert float((gradient * probe).sum()) == pytest.approx(float(difference), rel=1e-6)


def linear(k: int = 3) -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, k))
    return Classifier(network, num_classes=k, input_shape=(1, 4, 4))


def test_softmax_mean_is_the_log_of_the_mean_softmax():
    defense = Purified(Shrink(scale=0.2), linear(), runs=5)
    noise = Noise.of(0, len(X))
    streams = [Noise(noise.copies(5).keys[i::5]) for i in range(5)]
    runs = [defense.classifier.logits(purify(defense.purifier, X, s), s) for s in streams]
    expected = torch.stack(runs).softmax(-1).mean(0).log()
    assert torch.allclose(defense.logits(X, noise), expected, atol=1e-6)
    averaged = Purified(Shrink(scale=0.2), defense.classifier, runs=5, combine="logit-mean")
    assert torch.allclose(averaged.logits(X, noise), torch.stack(runs).mean(0), atol=1e-6)


def test_passes_of_limited_rows_change_nothing():
    noise, classifier = Noise.of(0, len(X)), linear()
    whole = Purified(Shrink(scale=0.2), classifier, runs=4).logits(X, noise)
    parts = Purified(Shrink(scale=0.2), classifier, runs=4, rows=5).logits(X, noise)
    assert torch.allclose(whole, parts, atol=1e-6)


@pytest.mark.parametrize(("key", "value"), [("runs", 0), ("combine", "median")])
def test_bad_parameters_are_named(key, value):
    with pytest.raises(UserError, match=key):
        Purified(Shrink(), linear(), **{key: value})


def test_calls_draw_fresh_noise_and_stay_in_evaluation_mode():
    defense = Purified(Shrink(scale=0.2), linear(), runs=1)
    assert not torch.equal(defense(X), defense(X))
    assert defense.stochastic
    assert not defense.train(True).training
    assert math.isfinite(float(defense(X).detach().sum()))
