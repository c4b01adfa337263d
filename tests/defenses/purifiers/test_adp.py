"""ADP against closed forms: Gaussian data, whose ideal score is linear."""

import math

import pytest
import torch
from torch import nn

from defenses import load_model
from defenses.core.noise import Noise
from defenses.core.purify import purify
from defenses.networks.registry import build_network
from defenses.purifiers.adp import ADP
from defenses.utils.errors import UserError

SHAPE = (1, 4, 4)
MU, SLOPE = 0.55, 3.0


class LinearScore(nn.Module):
    """The ideal f for data N(mu, s^2) under noise sigma: -E[z | x] = -(x - mu) sigma / (s^2 + sigma^2)."""

    def __init__(self, slope: float = SLOPE):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        return -self.slope * (x - MU)


def images(n=6):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_step_size_on_gaussian_data():
    # f' = -slope, so gamma = 1 - delta slope and alpha = lam / slope, whatever the image.
    p = ADP(LinearScore(), sigma=0, lam=0.05)
    u = images()
    torch.testing.assert_close(p.step_size(u, p.score(u)), torch.full((6,), 0.05 / SLOPE, dtype=torch.float64))


@pytest.mark.parametrize(("slope", "alpha"), [(1e-3, 1e-1), (1e6, 1e-5), (-2.0, 1e-5)])
def test_step_size_is_clamped(slope, alpha):
    p = ADP(LinearScore(slope), sigma=0)
    u = images()
    torch.testing.assert_close(p.step_size(u, p.score(u)), torch.full((6,), alpha, dtype=torch.float64))


def test_vanishing_score_moves_nothing_and_has_gradients():
    p = ADP(LinearScore(0.0), sigma=0, steps=3)
    x = images().requires_grad_()
    out = purify(p, x, Noise.of(0, 6))
    torch.testing.assert_close(out, x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, torch.ones_like(x))


def test_iterates_are_the_closed_recursion():
    # u - mu shrinks by 1 - lam a step, on the grid.
    lam, steps = 0.1, 7
    x = 0.2 + 0.6 * images()
    out = purify(ADP(LinearScore(), sigma=0, lam=lam, steps=steps), x, Noise.of(0, 6))
    grid = x * 255 / 256 + 1 / 512
    expected = MU + (1 - lam) ** steps * (grid - MU)
    torch.testing.assert_close(out, (expected - 1 / 512) * 256 / 255)


def test_fixed_point_is_the_mean():
    out = purify(ADP(LinearScore(), sigma=0, lam=0.5, steps=60), images(), Noise.of(0, 6))
    torch.testing.assert_close(out, torch.full_like(out, (MU - 1 / 512) * 256 / 255))


def test_faithful_form_raises_the_contrast():
    # No movement: only the release's drift is left, 256/255 a step about one half, clamped at the box.
    steps = 10
    x = 0.1 + 0.8 * images()
    out = purify(ADP(LinearScore(0.0), sigma=0, steps=steps, faithful=True), x, Noise.of(0, 6))
    first = x * 255 / 256 + 1 / 512
    torch.testing.assert_close(out, 0.5 + (first - 0.5) * (256 / 255) ** steps)
    assert (256 / 255) ** steps * 255 / 256 == pytest.approx(1.036, abs=1e-3)


def test_faithful_form_is_the_release_step_by_step():
    p = ADP(LinearScore(), sigma=0, steps=4, faithful=True)
    x = images()
    u = x * 255 / 256 + 1 / 512
    for _ in range(4):
        u = ((u + 0.05 / SLOPE * p.score(u)) * 256 / 255 - 1 / 510).clamp(0, 1)
    torch.testing.assert_close(purify(p, x, Noise.of(0, 6)), u)


@pytest.mark.parametrize(("kind", "spread"), [("normal", 0.1), ("binary", 0.1 * math.sqrt(2 / math.pi))])
def test_noise_is_injected(kind, spread):
    p = ADP(LinearScore(0.0), sigma=0.1, steps=1, noise_kind=kind)
    x = torch.full((400, *SHAPE), 0.5)
    moved = purify(p, x, Noise.of(0, 400)) - 0.5
    assert float(moved.std()) == pytest.approx(spread, rel=0.05)
    if kind == "binary":
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, spread))


def test_gradient_is_exact_through_the_step_size():
    network = build_network("score-mlp", size=4, hidden=16).double()
    # A wild network, so that step sizes differ from image to image and depend on it.
    with torch.no_grad():
        for q in network.parameters():
            q.mul_(3)
    p = ADP(network, sigma=0.05, steps=3, lam=0.3, delta=1e-2)
    x = (0.4 + 0.2 * images(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: purify(p, a, Noise.of(0, 3)), (x,), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("faithful", [False, True])
def test_leaving_early_changes_nothing(faithful):
    network = build_network("score-mlp", size=4, hidden=32, seed=1).double()
    p = ADP(network, sigma=0.2, steps=6, tau=1e-3, lam=0.05, faithful=faithful)
    x = images(40)
    noise = Noise.of(3, 40)
    state, ctx = p.start(x, tuple(noise.child(0, i).draw(d).double() for i, d in enumerate(p.noise(SHAPE).start)))
    for k in range(p.steps):
        state = p.step(state, ctx, k, ())
    stopped = int((~state["alive"]).sum())
    assert 0 < stopped < 40, "the test needs rows of both sorts"
    torch.testing.assert_close(purify(p, x, noise), p.finish(state, ctx))
    x.requires_grad_()
    torch.testing.assert_close(purify(p, x, noise), p.finish(state, ctx))


def test_rows_are_their_own():
    p = ADP(LinearScore(), sigma=0.25)
    x, noise = images().float(), Noise.of(0, 6)
    some = torch.tensor([4, 1])
    torch.testing.assert_close(purify(p, x, noise)[some], purify(p, x[some], noise.rows(some)))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"sigma": -0.1}, "sigma"),
        ({"steps": -1}, "steps"),
        ({"lam": 0}, "lam"),
        ({"noise_kind": "cauchy"}, "noise_kind"),
    ],
)
def test_bad_parameters(args, message):
    with pytest.raises(UserError, match=message):
        ADP(LinearScore(), **args)


def test_built_defense_costs_what_it_says():

    defense = load_model("adp", runs=3, steps=10)
    assert defense.stochastic
    calls = []
    (network,) = defense.purifier.cost_modules()
    network.register_forward_hook(lambda m, i, o: calls.append(len(i[0])))
    out = defense.logits(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), Noise.of(0, 2))
    assert out.shape == (2, 10)
    assert sum(calls) <= 2 * 3 * 10 * 2
