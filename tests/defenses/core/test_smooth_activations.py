"""Gradients of piecewise linear energies: smoothed activations and central differences, against Hessians."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_purifier import CLASSES, SHAPE, WEIGHTS, B, D, X, energy, gradient, linear, values
from torch import nn

from bench.evaluation.meter import Meter
from defenses.core.backward import purified
from defenses.core.defense import Purified
from defenses.core.noise import Noise
from defenses.core.replay import graph_bytes
from defenses.core.smooth_activations import SmoothLeakyReLU, smooth
from defenses.core.steps import advance, start, step_noise
from defenses.purifiers.langevin import Langevin


def states(purifier, x):
    """Return the state before every step of the purifier."""
    with torch.no_grad():
        noise = Noise.of(4, len(x)).copies(1)
        state, ctx = start(purifier, x, noise)
        z, visited = step_noise(purifier, x, noise), []
        for k in range(purifier.steps):
            visited.append(state["u"])
            state = advance(purifier, state, ctx, range(k, k + 1), z)
    return visited


def back_through(purifier, x, apply):
    """Return the gradient at the image after v <- v - apply(u, v) at every state, last first."""
    v = (WEIGHTS.double() @ values(CLASSES, D, seed=2).double()).expand(B, D)
    for u in reversed(states(purifier, x)):
        v = v - apply(u.flatten(1), v)
    return v


def double(act, steps=5, eps=0.3):
    purifier = Langevin(energy(act, dtype=torch.float64), eps=eps, steps=steps)
    return Purified(purifier, linear().double(), runs=1)


def test_smooth_is_the_hessian_of_the_smooth_energy_at_the_true_states():
    defense = double(nn.LeakyReLU)
    soft = smooth(defense.purifier.gradient.energy, 0.3 / 3)

    def apply(u, v):
        hessian = [torch.func.hessian(lambda w: soft(w.view(1, *SHAPE)).sum())(row) for row in u]
        return torch.einsum("bij,bj->bi", torch.stack(hessian), v)

    _, grad = gradient(defense, "smooth", X.double())
    expected = back_through(defense.purifier, X.double(), apply)
    torch.testing.assert_close(grad.flatten(1), expected, rtol=1e-9, atol=1e-9)
    assert (expected - gradient(defense, "bpda", X.double())[1].flatten(1)).norm() > 0.01 * expected.norm()


def test_difference_is_the_central_difference_at_the_true_states():
    defense = double(nn.LeakyReLU)
    field, h = defense.purifier.gradient, 0.3 * D**0.5

    def apply(u, v):
        length = v.norm(dim=1, keepdim=True)
        ends = [field((u + s * h * v / length).view(B, *SHAPE)).flatten(1) for s in (1, -1)]
        return (ends[0] - ends[1]) * length / (2 * h)

    _, grad = gradient(defense, "difference", X.double())
    expected = back_through(defense.purifier, X.double(), apply)
    torch.testing.assert_close(grad.flatten(1), expected, rtol=1e-9, atol=1e-9)
    assert (expected - gradient(defense, "bpda", X.double())[1].flatten(1)).norm() > 0.01 * expected.norm()


class Quadratic(nn.Module):
    """f = u A u / 2 with a symmetric A: differences are exact at any distance."""

    def __init__(self):
        super().__init__()
        half = values(D, D, seed=8).double() * 0.05
        self.matrix = half + half.T

    def forward(self, u):
        flat = u.flatten(1)
        return ((flat @ self.matrix) * flat).sum(1) / 2


def test_differences_are_exact_on_a_quadratic_energy():
    defense = Purified(Langevin(Quadratic(), eps=0.5, steps=7), linear().double(), runs=1)
    _, exact = gradient(defense, "exact", X.double())
    _, grad = gradient(defense, "difference", X.double())
    torch.testing.assert_close(grad, exact, rtol=1e-10, atol=1e-10)
    matrix = torch.linalg.matrix_power(torch.eye(D).double() - defense.purifier.gradient.energy.matrix, 7)
    at_image = (WEIGHTS.double() @ values(CLASSES, D, seed=2).double()).expand(B, D)
    torch.testing.assert_close(exact.flatten(1), at_image @ matrix, rtol=1e-9, atol=1e-9)


def test_the_gradient_of_a_smooth_energy_is_differentiable_any_number_of_times():
    field, u = double(nn.SiLU).purifier.gradient, X[:1].double().requires_grad_()
    assert torch.autograd.gradcheck(field, (u,))
    assert torch.autograd.gradgradcheck(field, (u,))


def test_differences_on_a_smooth_energy_go_to_the_exact_gradient_as_their_square():
    errors = []
    for eps in (0.1, 0.05):
        defense = double(nn.SiLU, eps=eps)
        defense.purifier.drift = 1.0
        (_, exact), (_, grad) = (gradient(defense, m, X.double()) for m in ("exact", "difference"))
        errors.append(float((exact - grad).norm() / exact.norm()))
    assert errors[0] < 0.01
    assert 3 < errors[0] / errors[1] < 5


def test_no_gradient_arrives_where_none_left():
    defense, x = Purified(Langevin(energy(nn.LeakyReLU), steps=3), linear()), X.clone().requires_grad_()
    logits = defense.logits(x, Noise.of(0, B), gradient="difference")
    (grad,) = torch.autograd.grad(logits[1:].sum(), x)
    assert grad.isfinite().all()
    assert not grad[0].any()
    assert grad[1:].flatten(1).any(1).all()


@given(st.floats(-5, 5), st.floats(0, 0.9), st.floats(1e-3, 2))
def test_a_smooth_activation_is_near_the_sharp_one(x, slope, width):
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    act = SmoothLeakyReLU(slope, width)
    y = act(x)
    gap = float((y - nn.functional.leaky_relu(x, slope)).detach())
    assert -1e-12 <= gap <= (1 - slope) * width * math.log(2) + 1e-12
    (derivative,) = torch.autograd.grad(y, x)
    assert float(derivative) == pytest.approx(float(act.slope(x).detach()), abs=1e-12)


@pytest.mark.parametrize("act", [nn.ReLU, nn.LeakyReLU])
def test_a_smooth_network_shares_its_tensors_and_leaves_the_other_as_it_was(act):
    network = nn.Sequential(nn.Linear(3, 4), nn.Sequential(act(), nn.Linear(4, 1)))
    before = repr(network)
    soft = smooth(network, 0.1)
    assert repr(network) == before
    assert [p.data_ptr() for p in soft.parameters()] == [p.data_ptr() for p in network.parameters()]
    assert soft[1][0].width == 0.1
    network.double()
    assert soft(torch.zeros(1, 3, dtype=torch.float64)).dtype == torch.float64
    other = nn.Sequential(nn.Linear(3, 3), nn.SiLU())
    assert smooth(other, 0.1) is other


@pytest.mark.parametrize(("mode", "forwards", "backwards"), [("smooth", 2, 5), ("difference", 4, 4)])
def test_what_the_copies_compute_is_counted(mode, forwards, backwards):
    """A step calls grad f (one forward, one backward) twice; back through it costs three backwards, or two calls."""
    defense = Purified(Langevin(energy(nn.LeakyReLU), steps=4), linear(), runs=1)
    meter = Meter(defense.purifier.cost_modules())
    gradient(defense, mode)
    assert (meter.forwards, meter.backwards) == (4 * B * forwards, 4 * B * backwards)
    meter.detach()


@pytest.mark.parametrize("mode", ["smooth", "difference"])
def test_memory_is_states_and_not_graphs(mode):
    langevin = Langevin(energy(nn.LeakyReLU), steps=40)
    x = X.clone().requires_grad_()
    with graph_bytes(langevin) as total:
        image = purified(langevin, x, Noise.of(0, B), mode)
    assert image.requires_grad
    assert total[0] <= (langevin.steps + 4) * x.nbytes * 1.2
