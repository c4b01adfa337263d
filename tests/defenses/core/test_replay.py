"""Gradients by replay against plain autograd and closed forms, on every path and by every call of autograd."""

import gc
import sys

import pytest
import torch
from all_paths import Everything, X, energy, net
from torch import nn

from defenses.core.noise import Noise
from defenses.core.purifier import Purifier
from defenses.core.purify import purify, unrolled
from defenses.core.replay import bytes_per_row, extent, graph_bytes, replayed
from defenses.purifiers.adp import ADP
from defenses.purifiers.langevin import Langevin


def purifier_of(name):
    torch.manual_seed(3)
    return {
        "everything": Everything,
        "adp": lambda: ADP(net(), sigma=0.2, steps=6),
        "adp-faithful": lambda: ADP(net(), sigma=0.2, steps=6, faithful=True, noise_kind="binary"),
        "langevin": lambda: Langevin(energy(), eps=0.1, steps=9),
        "no-step": lambda: ADP(net(), sigma=0.2, steps=0),
    }[name]()


ALL = ["everything", "adp", "adp-faithful", "langevin", "no-step"]
WEIGHT = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(2))


def gradient(how, purifier, x=X, **options):
    x = x.clone().requires_grad_()
    out = how(purifier, x, Noise.of(4, len(x)), **options)
    return out.detach(), torch.autograd.grad((out * WEIGHT.to(x.dtype)).sum(), x)[0]


@pytest.mark.parametrize(("length", "last"), [(1, 0), (2, 0), (4, 0), (100, 0), (1, 1), (2, 3), (4, 100)])
@pytest.mark.parametrize("name", ALL)
def test_a_replayed_gradient_is_that_of_autograd_to_the_last_bit(name, length, last):
    purifier = purifier_of(name).requires_grad_(False)
    image, exact = gradient(unrolled, purifier)
    again, grad = gradient(replayed, purifier, length=length, last=last)
    assert torch.allclose(image, again, atol=1e-6)
    assert torch.allclose(exact, grad, rtol=1e-5, atol=1e-6)
    if name in ("everything", "adp", "adp-faithful", "no-step"):  # no other path without grad: the same operations
        assert torch.equal(image, again)


@pytest.mark.parametrize("last", [0, 3])
def test_sympy_is_not_imported(monkeypatch, last):
    """A run of one minute would wait seconds for it, in each of its workers."""
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.symbolic_shapes", None)
    gradient(replayed, purifier_of("everything"), length=2, last=last)


@pytest.mark.parametrize("name", ALL)
def test_in_double_precision_it_agrees_with_central_differences(name):
    purifier, x = purifier_of(name).double(), X.double()
    _, grad = gradient(replayed, purifier, x, length=2, last=2)
    probe = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    noise, h = Noise.of(4, len(x)), 1e-6

    def value(v):
        return (unrolled(purifier, v, noise) * WEIGHT.double()).sum()

    with torch.no_grad():
        slope = (value(x + h * probe) - value(x - h * probe)) / (2 * h)
    assert float((grad * probe).sum()) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("last", [0, 3])
def test_backward_retain_graph_and_parameters(last):
    purifier = Everything()
    x = X.clone().requires_grad_()
    out = (replayed(purifier, x, Noise.of(4, 5), length=2, last=last) * WEIGHT).sum()
    out.backward(retain_graph=True)
    first, weight = x.grad.clone(), purifier.layer.weight.grad.clone()
    out.backward()
    assert torch.equal(x.grad, 2 * first)
    assert torch.equal(purifier.layer.weight.grad, 2 * weight)
    purifier.zero_grad()
    y = X.clone().requires_grad_()
    (unrolled(purifier, y, Noise.of(4, 5)) * WEIGHT).sum().backward()
    assert torch.allclose(purifier.layer.weight.grad, weight, rtol=1e-5, atol=1e-6)
    assert torch.allclose(y.grad, first, rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()


def test_only_what_is_asked_is_computed():
    purifier = Everything()
    x = X.clone().requires_grad_()
    out = (replayed(purifier, x, Noise.of(4, 5)) * WEIGHT).sum()
    torch.autograd.grad(out, x)
    assert purifier.layer.weight.grad is None


def test_a_second_derivative_is_refused_and_not_wrong():
    x = X.clone().requires_grad_()
    out = replayed(Everything(), x, Noise.of(4, 5)).sum()
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(out, x, create_graph=True)


@pytest.mark.parametrize("name", ["everything", "adp"])
def test_autocast_is_had_again(name):
    purifier = purifier_of(name).requires_grad_(False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image, exact = gradient(unrolled, purifier)
        x = X.clone().requires_grad_()
        out = replayed(purifier, x, Noise.of(4, 5), length=2)
    (grad,) = torch.autograd.grad((out * WEIGHT).sum(), x)  # outside the context, as a training loop does
    assert torch.equal(out, image)
    assert torch.allclose(grad, exact, rtol=1e-2, atol=1e-3)
    assert not torch.equal(image, gradient(unrolled, purifier)[0])


@pytest.mark.parametrize("budget", [0.0, float("inf")])
def test_purify_chooses_by_memory_and_the_result_does_not_change(monkeypatch, budget):
    purifier = purifier_of("everything").requires_grad_(False)
    monkeypatch.setattr("defenses.core.replay.free_memory", lambda device: budget)
    held_graph = extent(purifier, X, Noise.of(4, 5))
    assert held_graph.last == purifier.steps if budget else 1 <= held_graph.length <= held_graph.last < purifier.steps
    image, grad = gradient(purify, purifier)
    expected_image, expected = gradient(unrolled, purifier)
    assert torch.equal(image, expected_image)
    assert torch.allclose(grad, expected, rtol=1e-5, atol=1e-6)


class Passing(Purifier):
    """A purifier with the unchanged image as state and context."""

    steps = 3

    def start(self, x, z):
        return {"u": x, "same": x}, {"x": x}

    def step(self, state, ctx, k, z):
        return state

    def finish(self, state, ctx):
        return state["u"] + 2 * state["same"] + 4 * ctx["x"]


@pytest.mark.parametrize("last", [0, 1, 3])
def test_an_image_that_passes_unchanged_gets_every_part_of_its_gradient(last):
    image, grad = gradient(replayed, Passing(), last=last)
    assert torch.allclose(image, 7 * X)
    assert torch.allclose(grad, 7 * WEIGHT)


@pytest.mark.parametrize("steps", [7, 20])
def test_the_graph_of_the_last_steps_fills_the_memory_that_is_left(monkeypatch, steps):
    purifier = Everything(steps).requires_grad_(False)
    state, graph = (len(X) * size for size in bytes_per_row(purifier, X, Noise.of(4, 5)))
    for graphs in range(steps):
        monkeypatch.setattr(
            "defenses.core.replay.free_memory", lambda device, n=graphs: 4 * (steps * state + n * graph)
        )
        held_graph = extent(purifier, X, Noise.of(4, 5))
        assert held_graph.length <= held_graph.last < steps or held_graph.last == steps
        assert held_graph.last >= graphs
        assert held_graph.last * graph <= max(held_graph.length * graph, steps * state + graphs * graph)


def held(how, purifier, x, **options):
    gc.collect()
    with graph_bytes(purifier) as total:
        out = how(purifier, x, Noise.of(0, len(x)), **options)
    del out
    return total[0]


def test_memory_is_states_and_not_graphs():
    torch.manual_seed(0)
    score = nn.Sequential(*[nn.Conv2d(1, 24, 3, padding=1), nn.SiLU(), nn.Conv2d(24, 1, 3, padding=1)])
    purifier, x = ADP(score, steps=50).requires_grad_(False), torch.rand(4, 1, 8, 8).requires_grad_()
    states, graph = held(replayed, purifier, x), held(unrolled, purifier, x)
    assert states < 0.05 * graph
    assert states <= (purifier.steps + 4) * x.nbytes * 1.2
