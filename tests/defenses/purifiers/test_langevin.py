"""Langevin purification: gradients by hand, and the stationary law on a quadratic energy."""

import copy

import pytest
import torch
from torch import nn

from bench.evaluation.meter import Meter
from defenses import load_model
from defenses.core.noise import Noise
from defenses.core.purify import purify
from defenses.networks.registry import build_network, deployed
from defenses.purifiers.langevin import EnergyGradient, Langevin
from defenses.training.stability import stability
from defenses.utils.errors import UserError


def by_autograd(energy: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(energy(x).sum(), x, create_graph=True)[0]


def values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


NETWORKS = {
    "mlp": (("energy-mlp", {"hidden": 32, "depth": 3}), (1, 8, 8)),
    "leaky mlp": (("energy-mlp-leaky", {"hidden": 32, "depth": 3}), (1, 8, 8)),
    "conv 32": (("energy-conv", {"features": 4}), (3, 32, 32)),
    "conv 28, whose strides leave a rest": (
        ("energy-conv", {"features": 4, "size": 28, "in_channels": 1}),
        (1, 28, 28),
    ),
    "conv 40, whose last kernel does not cover all": (("energy-conv", {"features": 4, "size": 32}), (3, 40, 40)),
    "conv 8": (("energy-conv", {"features": 4, "size": 8, "in_channels": 1}), (1, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradient_by_hand_is_autograd(name, channels_last):
    (kind, args), shape = NETWORKS[name]
    energy = build_network(kind, **args).double()
    if channels_last:
        energy = deployed(energy)
    gradient = EnergyGradient(energy)
    assert gradient.chain
    x = values(3, *shape).requires_grad_()
    expected = by_autograd(energy, x)
    with torch.no_grad():
        torch.testing.assert_close(gradient(x), expected, atol=1e-10, rtol=1e-10)
    through = gradient(x)
    torch.testing.assert_close(through, expected, atol=1e-10, rtol=1e-10)
    # Second order: the pull-back of a fixed direction.
    v = values(3, *shape).flip(0)
    (hand,), (auto,) = (torch.autograd.grad(g, x, v) for g in (through, expected))
    torch.testing.assert_close(hand, auto, atol=1e-10, rtol=1e-10)


class Quadratic(nn.Module):
    """f = a/2 |x - m|^2: no chain of layers, so autograd is used."""

    def __init__(self, a: float, m: float):
        super().__init__()
        self.a, self.m = a, m

    def forward(self, x):
        return self.a / 2 * (x - self.m).square().flatten(1).sum(1)


def test_other_energies_fall_back_to_autograd():
    gradient = EnergyGradient(Quadratic(0.3, 0.1))
    assert not gradient.chain
    x = values(2, 1, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(gradient(x), 0.3 * (x - 0.1))
    x.requires_grad_()
    (second,) = torch.autograd.grad(gradient(x).sum(), x)
    torch.testing.assert_close(second, torch.full_like(x, 0.3))


def test_stationary_law_of_a_quadratic_energy():
    # x <- x - a (x - m) + eps z: mean m, variance eps^2 / (1 - (1-a)^2) = T/a' (1 + O(a)), not the limit's eps^2 / 2a.
    a, m, eps, steps = 0.4, 0.2, 0.05, 30
    p = Langevin(Quadratic(a, m), eps=eps, steps=steps)
    assert p.temperature == pytest.approx(eps**2 / 2)
    x = torch.full((500, 1, 8, 8), 0.9)
    out = 2 * purify(p, x, Noise.of(0, 500)) - 1
    shrink = 1 - a
    mean = m + shrink**steps * (0.8 - m)
    variance = eps**2 * (1 - shrink ** (2 * steps)) / (1 - shrink**2)
    n = out.numel()
    assert float(out.mean()) == pytest.approx(mean, abs=4 * (variance / n) ** 0.5)
    assert float(out.var()) == pytest.approx(variance, rel=4 * (2 / n) ** 0.5)
    # The bias of the discretisation is seen: the continuous law has another variance.
    assert abs(float(out.var()) - eps**2 / (2 * a)) > 0.2 * eps**2 / (2 * a)


def test_another_step_size_at_the_same_temperature():
    # Half of eps: a quarter of the drift, so the stationary law stays (up to discretisation).
    p = Langevin(Quadratic(0.02, 0.0), eps=0.025, temperature=0.05**2 / 2, steps=1)
    assert p.drift == pytest.approx(0.25)
    q = Langevin(Quadratic(0.02, 0.0), eps=0.05)
    assert q.drift == 1


def test_nothing_is_clamped_and_memory_has_no_graph():
    p = Langevin(Quadratic(0.001, 3.0), eps=0.01, steps=2000)
    out = purify(p, torch.ones(2, 1, 2, 2), Noise.of(0, 2))
    assert float(out.max()) > 1.3
    assert not out.requires_grad


def test_gradient_through_the_chain_is_exact():
    energy = build_network("energy-mlp", size=4, hidden=16).double()
    p = Langevin(energy, eps=0.05, steps=4)
    x = (0.5 + 0.1 * values(3, 1, 4, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: purify(p, a, Noise.of(0, 3)), (x,), eps=1e-6, atol=1e-6)


def test_rows_are_their_own():
    p = Langevin(build_network("energy-mlp"), eps=0.03, steps=5)
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    noise, some = Noise.of(0, 6), torch.tensor([5, 0])
    torch.testing.assert_close(purify(p, x, noise)[some], purify(p, x[some], noise.rows(some)))


@pytest.mark.parametrize("args", [{"eps": 0}, {"steps": -1}, {"temperature": 0}])
def test_bad_parameters(args):
    with pytest.raises(UserError):
        Langevin(Quadratic(1, 0), **args)


def test_cost_is_counted_at_the_gradient():

    defense = load_model("ebm-mcmc", steps=4, runs=3)
    meter = Meter(defense.purifier.cost_modules())
    defense.logits(torch.full((2, 1, 8, 8), 0.5), Noise.of(0, 2))
    assert (meter.forwards, meter.backwards) == (2 * 3 * 4, 2 * 3 * 4)


def test_stability_of_a_known_energy():
    eps = 0.05
    x = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    clf = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    report = stability(Quadratic(0.2, 0.0), x, steps=200, eps=eps, classifier=clf, train_images=x)
    data, noise = (report[n][-1] for n in ("from_data", "from_noise"))
    # U = f/T has mean (a/2) D variance / T on the stationary law: both starts meet there.
    u = 0.2 / 2 * 16 * eps**2 / (1 - 0.8**2) / (eps**2 / 2)
    assert data["U"] == pytest.approx(u, rel=0.1)
    assert noise["U"] == pytest.approx(u, rel=0.1)
    assert 0.9 < data["mala"] <= 1
    assert sum(data["classes"]) == pytest.approx(1, abs=1e-3)
    assert data["outside"] == 0
    assert report["from_data"][0]["nearest_train"] == pytest.approx(0, abs=1e-3)
    again = stability(copy.deepcopy(Quadratic(0.2, 0.0)), x, steps=200, eps=eps, classifier=clf, train_images=x)
    assert again == report


def test_the_gradient_of_convolutions_in_bfloat16_is_that_of_float32_on_any_cpu():
    """Explicit formulas met mixed types under autocast, which CPUs without bfloat16 refuse."""
    field = EnergyGradient(deployed(build_network("energy-conv", features=4)))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = field(x)
    with torch.autocast("cpu", torch.bfloat16):
        less = field(x)
    assert less.dtype == torch.float32
    assert 0 < (less - plain).norm() < 0.25 * plain.norm()  # units near 0 change their slope
