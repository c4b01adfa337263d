"""Attack views: gradients, freshness, noise, cost."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from models import SHAPE, AddNoise, Linear, Net, Squash, classifier, images, seeded
from torch import Tensor, nn

from bench.evaluation.meter import Meter
from bench.evaluation.view import AttackView, attack_view
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier, Defense, Purified, UserModule
from defenses.core.noise import Noise
from defenses.utils.errors import UserError


def linear(classes: int = 3) -> Classifier:
    weight, bias = seeded(classes, 64, seed=5), seeded(classes, seed=6)
    return Classifier(Linear(weight, bias), num_classes=classes, input_shape=SHAPE)


def noisy(sigma: float = 0.3, runs: int = 1, combine: str = "logit-mean") -> Purified:
    return Purified(AddNoise(sigma), linear(), runs=runs, combine=combine)  # type: ignore[arg-type]


def gradient(view: nn.Module, x: Tensor, how: str) -> Tensor:
    """d(sum of the first logit)/dx, taken in one of the ways of the attack libraries."""
    x = x.clone().requires_grad_()
    score = view(x)[:, 0].sum()
    if how == "grad":
        return torch.autograd.grad(score, x)[0]
    if how == "retain":
        score.backward(retain_graph=True)
        x.grad = None
    score.backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("how", ["grad", "backward", "retain"])
@pytest.mark.parametrize("mode", ["exact", "bpda", "blind"])
def test_gradients_do_not_depend_on_how_they_are_taken(mode: str, how: str) -> None:
    defense, x = Purified(Squash(), classifier(), runs=2, combine="logit-mean"), images()
    view = AttackView(defense, ViewSpec(gradient=mode), seed=0)
    point = {"exact": x**4, "bpda": x**4, "blind": x}[mode]
    expected = gradient(defense.classifier.network, point, "grad")
    if mode == "exact":
        expected = expected * 4 * x**3
    torch.testing.assert_close(gradient(view, x, how), expected, rtol=1e-4, atol=1e-6)


def test_retained_graph_gives_the_jacobian_row_by_row() -> None:
    """As FAB takes it: one forward, a backward per class."""
    defense = linear()
    x = images().requires_grad_()
    logits = AttackView(defense, ViewSpec(), seed=0)(x)
    for k in range(3):
        x.grad = None
        logits[:, k].sum().backward(retain_graph=True)
        assert x.grad is not None
        row = defense.network.weight[k].view(1, *SHAPE).expand_as(x)  # type: ignore[union-attr,operator]
        torch.testing.assert_close(x.grad, row)


def test_calls_return_fresh_tensors() -> None:
    class Stored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(30.0).view(10, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.table[: len(x)]  # type: ignore[index,no-any-return]

    view = AttackView(Classifier(Stored(), num_classes=3, input_shape=SHAPE), ViewSpec(), seed=0)
    x = images(4)
    first = view(x)
    first[:, 0] = -float("inf")  # what Square does
    assert torch.isfinite(view(x)).all()


def test_no_gradient_is_left_on_parameters() -> None:
    defense = classifier()
    defense.network.requires_grad_(True)
    with attack_view(defense, ViewSpec(), seed=0) as (view, _):
        view(images().requires_grad_()).sum().backward()
        assert not any(p.requires_grad for p in view.parameters())
    assert all(p.grad is None for p in defense.parameters())
    assert all(p.requires_grad for p in defense.parameters())


@pytest.mark.parametrize("output", ["logits", "log-mean-prob"])
def test_eot_mean_is_right_in_expectation(output: str) -> None:
    defense, x = noisy(0.05), images(2)
    view = AttackView(defense, ViewSpec(eot=4096, output=output), seed=1)
    with torch.no_grad():
        if output == "logits":
            expected = defense.classifier.network(x)
        else:
            z = seeded(4096, 1, *SHAPE, seed=77)
            expected = torch.stack([defense.classifier.network(i + 0.05 * z).softmax(1).mean(0).log() for i in x])
    # The logits' standard deviation is at most .05 * |w| < .5, so that of their mean is below .008.
    torch.testing.assert_close(view(x), expected, rtol=0, atol=0.05)


def test_eot_gradient_is_the_mean_gradient() -> None:
    defense, x = Purified(AddNoise(0.1), classifier()), images(3)
    spec = ViewSpec(eot=3)
    whole = gradient(AttackView(defense, spec, seed=2), x, "grad")
    streams = Noise.of(2, 3).child(1).copies(3)
    parts = []
    for copy in range(3):
        point = x.clone().requires_grad_()
        logits = defense.logits(point, streams.rows(torch.arange(copy, 9, 3)))
        parts.append(torch.autograd.grad(logits[:, 0].sum(), point)[0])
    torch.testing.assert_close(whole, torch.stack(parts).mean(0))


def test_noise_differs_by_call_and_is_fixed_by_the_seed() -> None:
    defense, x = noisy(), images()
    view, again, other = (AttackView(defense, ViewSpec(), seed=s) for s in (1, 1, 2))
    first, second = view(x), view(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)  # what AutoAttack does
    assert torch.equal(again(x), first)
    torch.manual_seed(0)
    assert torch.equal(again(x), second)
    assert not torch.equal(other(x), first)


def test_micro_batches_change_nothing() -> None:
    defense, x = noisy(runs=2), images()
    whole = AttackView(defense, ViewSpec(eot=2), seed=1)
    small = AttackView(defense, ViewSpec(eot=2), seed=1, rows=12)
    torch.testing.assert_close(small(x), whole(x))
    deterministic = AttackView(linear(), ViewSpec(), seed=1, rows=5)
    torch.testing.assert_close(deterministic(x), linear().network(x))


def states() -> tuple[object, ...]:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


@pytest.mark.parametrize("runs", [1, 3])
def test_our_defenses_leave_the_global_generators_alone(runs: int) -> None:
    before = states()
    view = AttackView(noisy(runs=runs), ViewSpec(eot=2), seed=1)
    gradient(view, images(), "grad")
    assert states() == before


def test_a_random_user_module_is_forked_and_seeded() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Net()

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x + torch.randn_like(x) * float(np.random.rand()))  # type: ignore[no-any-return]

    view, again = (AttackView(UserModule(Dropping(), stochastic=True), ViewSpec(), seed=1) for _ in range(2))
    before, x = states(), images()
    first, second = view(x), view(x)
    assert states() == before
    assert not torch.equal(first, second)
    assert torch.equal(again(x), first)


def test_blind_is_the_bare_classifier() -> None:
    defense, x = noisy(), images()
    assert torch.equal(AttackView(defense, ViewSpec(gradient="blind", eot=8), seed=1)(x), defense.classifier.network(x))


def test_bpda_forward_is_the_deployed_one() -> None:
    defense, x = Purified(Squash(), classifier()), images()
    view = AttackView(defense, ViewSpec(gradient="bpda"), seed=1)
    torch.testing.assert_close(view(x.clone().requires_grad_()), view(x))


def test_a_view_stays_in_evaluation_mode() -> None:
    view = AttackView(classifier(), ViewSpec(), seed=0)
    assert not view.training
    view.train()
    assert not any(m.training for m in view.modules())


def test_a_missing_gradient_mode_is_a_user_error() -> None:
    with pytest.raises(UserError, match='no gradient mode "bpda"; it has: exact'):
        AttackView(classifier(), ViewSpec(gradient="bpda"), seed=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_caught(bad: float) -> None:
    defense = linear()
    with torch.no_grad():
        defense.network.bias[0] = bad  # type: ignore[union-attr,index,operator]
    with pytest.raises(FloatingPointError, match="not finite"):
        AttackView(defense, ViewSpec(), seed=0)(images())


def test_an_attack_may_ask_about_nan() -> None:
    x = images(4)
    x[2] = float("nan")
    logits = AttackView(linear(), ViewSpec(), seed=0)(x)
    assert logits.isfinite().all(1).tolist() == [True, True, False, True]


def test_the_meter_counts_images_through_networks() -> None:
    defense, x = noisy(runs=2), images(5)
    with attack_view(defense, ViewSpec(eot=3), seed=0) as (view, meter):
        with torch.no_grad():
            view(x)
        assert (view.queries, meter.forwards, meter.backwards) == (5, 5 * 3 * 2, 0)
        gradient(view, x, "grad")
        assert (view.queries, meter.forwards, meter.backwards) == (10, 60, 30)
        gradient(view, x, "retain")
        assert (meter.forwards, meter.backwards, meter.evaluations) == (90, 90, 270)
    with torch.no_grad():
        defense(x)
    assert meter.forwards == 90


class Around(Defense):
    """An outsider's wrapper: it asks defenses by `logits`, so that they are never called."""

    def __init__(self, inner: list[Defense]):
        super().__init__()
        self.first, self.others = inner[0], nn.ModuleList(inner[1:])

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        return sum(d.logits(x, noise, gradient=gradient, runs=runs) for d in (self.first, *self.others))  # type: ignore


class Itself(Around):
    def cost_modules(self) -> list[nn.Module]:
        return [self]


@pytest.mark.parametrize("depth", [1, 2])
def test_the_meter_counts_defenses_inside_defenses(depth: int) -> None:
    inner = Classifier(Net(), num_classes=10, input_shape=(1, 8, 8))
    other = Classifier(Net(), num_classes=10, input_shape=(1, 8, 8))
    defense: Defense = Around([inner, other, inner])
    for _ in range(depth - 1):
        defense = Around([defense])
    meter = Meter(defense.cost_modules())
    defense(images(4).requires_grad_()).sum().backward()
    assert (meter.forwards, meter.backwards) == (12, 12)  # a network that is reached twice is counted once a pass


def test_a_defense_that_names_itself_is_counted_when_called() -> None:
    defense = Itself([Classifier(Net(), num_classes=10, input_shape=(1, 8, 8))])
    meter = Meter(defense.cost_modules())
    defense(images(4))
    assert meter.forwards == 4


def test_the_meter_counts_inner_backwards() -> None:
    class Energy(nn.Module):
        unit_backwards = 1

        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    energy = Energy()
    meter = Meter([energy])
    x = images(4).requires_grad_()
    energy(x).sum().backward()
    # Forward, inner backward; then back through both: 4 + (1 forward + 2 for its backward) * 4.
    assert (meter.forwards, meter.backwards) == (4, 4 + 3 * 4)


def test_the_first_exact_gradient_costs_what_others_cost() -> None:
    """The row by which replay learns how large a graph is does not count."""
    from defenses import load_model

    defense = load_model("diffpure", "digits", runs=4, steps=10)
    with attack_view(defense, ViewSpec(), seed=0) as (view, meter):
        costs = []
        for _ in range(2):
            before = meter.forwards, meter.backwards
            gradient(view, images(3), "grad")
            costs.append((meter.forwards - before[0], meter.backwards - before[1]))
    assert costs[0] == costs[1] == (3 * 44, 3 * 44)
