"""The gradient certificate passes what is exact and finds what is not."""

import math

import pytest
import torch
from all_paths import Everything, X, energy, net
from certificate_checks import DIFFERENCES, LINE, values
from models import Net
from networks import SIZES, classifier
from torch import nn

from bench.evaluation.certificates.certificate import NoGradient
from bench.evaluation.certificates.information import carries_information
from bench.evaluation.certificates.measure import certify
from defenses import load_model
from defenses.core.defense import Classifier, Purified, UserModule
from defenses.core.detector import Detector, Guard, Guarded
from defenses.core.noise import Noise
from defenses.core.replay import _BackwardPass
from defenses.core.steps import advance, step_noise
from defenses.data.dataset import load_dataset
from defenses.detectors.gated import Gated
from defenses.purifiers.adp import ADP
from defenses.purifiers.langevin import Langevin

STATES = "replayed states against those of the forward pass"
REPLAYED = "replayed float64 gradient against unrolled autograd"
ALL_STEPS = "float64 gradient over all steps against a central difference"
SCORES = "float64 gradient of the detector's scores against central differences"

through = _BackwardPass.through


def behind():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()


def purified(purifier, size=None):
    network = behind() if size is None else classifier(size)
    return Purified(purifier, Classifier(network, num_classes=4, input_shape=(1, 6, 6)), runs=3)


def piecewise_linear(size):
    """An energy whose gradient is piecewise constant, as is that of linear layers and LeakyReLU."""
    made = energy(size, nn.LeakyReLU)
    for module in made.modules():
        for name, part in module.named_children():
            if isinstance(part, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    return made


class Own(nn.Module):
    """Somebody's module that does something to the images before a linear layer."""

    def __init__(self, before):
        super().__init__()
        self.before, self.layer = before, behind()
        self.eval()

    def forward(self, x):
        return self.layer(self.before(x))


def own(before, *, stochastic=False):
    return UserModule(Own(before), stochastic=stochastic)


@pytest.mark.parametrize("name", ["undefended", "pgd-at", "adp", "ebm-mcmc"])
def test_our_defenses_are_exact(name):
    certificate, checks = values(load_model(name, "digits"), load_dataset("digits", "validation").x[:6])
    assert certificate.passed, checks
    assert certificate.steps == {"adp": 5, "ebm-mcmc": 20}.get(name)
    if certificate.steps:
        assert checks["replayed float64 gradient against unrolled autograd"].value < 1e-12


def test_every_kind_of_path_is_followed():
    certificate, checks = values(purified(Everything(steps=30)))
    assert certificate.passed, checks
    assert checks["replayed states against those of the forward pass"].value == 0


class Forgets(ADP):
    """A step size that is detached, as in implementations that miss a path."""

    def step_size(self, u, g):
        return super().step_size(u, g).detach()


class Wanders(Langevin):
    """The states made again are not those of the forward pass."""

    def step(self, state, ctx, k, z):
        moved = super().step(state, ctx, k, z)
        return {"u": moved["u"] + (1e-3 if torch.is_grad_enabled() else 0)}


class Unguided(Everything):
    """The image is cut off from what guides the steps; plain autograd then misses the path too."""

    def step(self, state, ctx, k, z):
        return super().step(state, {"guide": ctx["guide"].detach()}, k, z)


class Constant(Everything):
    paths = ("bend",)

    def bend(self, u):
        return u.round()

    def step(self, state, ctx, k, z):
        return super().step(state | {"u": state["u"] + 0.1 * self.bend(state["u"])}, ctx, k, z)


STEP = "the path through step_size contributes"
FAULTY = {
    "forgets": (lambda size: Forgets(net(size), sigma=0.2, steps=6, lam=1e-3), {DIFFERENCES, STEP}),
    "wanders": (lambda size: Wanders(energy(size), eps=0.1, steps=9), {STATES, REPLAYED, DIFFERENCES}),
    "unguided": (lambda size: Unguided(6, net(size)), {DIFFERENCES}),
    "constant": (lambda size: Constant(7, net(size)), {"the path through bend contributes"}),
    "linear": (
        lambda size: Langevin(piecewise_linear(size), eps=0.1, steps=9),
        {"the path through gradient contributes"},
    ),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fault", FAULTY)
def test_what_is_not_exact_is_found_at_every_size(fault, size):
    make, failed = FAULTY[fault]
    certificate, checks = values(purified(make(size), size))
    assert certificate.state == "failed"
    assert {name for name, c in checks.items() if not c.passed} == failed


@pytest.mark.parametrize("size", SIZES)
def test_honest_purifiers_of_every_size_pass(size):
    for purifier in (
        ADP(net(size), sigma=0.2, steps=6, lam=1e-3),
        Langevin(energy(size), eps=0.1, steps=24),
        Everything(6, net(size)),
    ):
        certificate, checks = values(purified(purifier, size))
        assert certificate.passed, checks


def _other_noise(purifier, x, noise, *stop):
    return step_noise(purifier, x, noise.child(9) if torch.is_grad_enabled() else noise, *stop)


def _one_step_early(purifier, state, ctx, segment, z):
    late = torch.is_grad_enabled() and segment.start > 0
    return advance(purifier, state, ctx, range(segment.start - late, segment.stop - late), z)


def _every_second_step(purifier, state, ctx, segment, z):
    if torch.is_grad_enabled():
        segment = range(segment.start, segment.stop - len(segment) // 2)
        if segment.start % 2:
            return state
    return advance(purifier, state, ctx, segment, z)


def _without_guidance(back, before, segment):
    through(back, before, segment)
    back.at_constant = {name: torch.zeros_like(value) for name, value in back.at_constant.items()}


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("step_noise", _other_noise),
        ("advance", _one_step_early),
        ("advance", _every_second_step),
        ("_BackwardPass.through", _without_guidance),
    ],
)
@pytest.mark.parametrize("size", SIZES)
def test_faults_of_the_backward_pass_are_found_at_every_size(monkeypatch, part, fault, size):
    """Noise not reused, a step too early, coarse backward over fine forward, guidance dropped."""
    monkeypatch.setattr(f"defenses.core.replay.{part}", fault)
    certificate, checks = values(purified(Everything(6, net(size)), size))
    assert certificate.state == "failed"
    assert checks[REPLAYED].value > 1e-3


def test_a_model_without_a_graph_has_no_gradient():
    with pytest.raises(NoGradient):
        certify(own(lambda x: x.detach()), X)


def test_a_gradient_of_zero_is_that_of_a_constant_and_not_of_rounding():
    assert certify(own(lambda x: 0 * x), X).passed
    _, checks = values(own(lambda x: (x * 4).round() / 4))
    assert [name for name, c in checks.items() if not c.passed] == [LINE]
    _, checks = values(own(lambda x: x + ((x * 4).round() / 4 - x).detach()))
    assert not checks[DIFFERENCES].passed


def test_a_random_module_of_somebody_else():
    assert certify(own(lambda x: x + 0.1 * torch.randn_like(x), stochastic=True), X).passed


class Tires(Langevin):
    """Exact for 20 steps; later ones lose a part of the gradient."""

    def step(self, state, ctx, k, z):
        moved = super().step(state, ctx, k, z)
        return moved if k < 20 else moved | {"u": 0.9 * moved["u"] + 0.1 * moved["u"].detach()}


@pytest.mark.parametrize("size", SIZES)
def test_a_fault_after_the_shortened_steps_is_found_at_every_size(size):
    certificate, checks = values(purified(Tires(energy(size), eps=0.1, steps=24), size))
    assert {name for name, c in checks.items() if c.state == "failed"} == {ALL_STEPS}
    assert certificate.steps == 20
    assert ALL_STEPS not in values(purified(Tires(energy(size), eps=0.1, steps=20), size))[1]


def test_a_mode_that_is_not_there_has_no_certificate():
    defense = Classifier(Net(), num_classes=10, input_shape=(1, 8, 8))
    defense.gradients = ("blind",)
    assert certify(defense, X) is None


def test_as_a_dict_for_json():
    import json

    told = json.loads(json.dumps(certify(purified(Everything()), X).as_dict()))
    assert told["passed"] is True
    assert told["images"] == len(X)
    assert all(math.isfinite(c["value"]) and c["name"] for c in told["checks"])


class Brightness(Detector):
    """The mean of smooth functions of the pixels; with a fault, a part of it is cut off."""

    def __init__(self, fault=False):
        super().__init__()
        self.fault = fault

    def scores(self, x, noise, classifier):
        part = x.square()
        return (x.sin() + (part.detach() if self.fault else part)).flatten(1).mean(1)


def guard(threshold=math.inf, **options):
    net = Classifier(behind(), num_classes=4, input_shape=(1, 6, 6))
    return Guard(Brightness(**options), net, threshold=threshold, scale=0.02)


@pytest.mark.parametrize("threshold", [-math.inf, 0.5, math.inf])
def test_a_gate_is_certified_with_images_that_it_suspects_and_others(threshold):
    options = {"sigma": 0.2, "steps": 6, "lam": 1e-3}
    certificate, checks = values(purified(Gated(ADP(net(), **options), guard(threshold))))
    assert certificate.passed, checks
    assert checks["the path through purifier.step_size contributes"].value > 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_a_fault_behind_a_gate_is_found_at_every_size(size):
    _, checks = values(purified(Gated(Forgets(net(size), sigma=0.2, steps=6, lam=1e-3), guard()), size))
    failed = {name for name, c in checks.items() if not c.passed}
    assert failed == {DIFFERENCES, "the path through purifier.step_size contributes"}


class Stuck(Gated):
    """Images that are not suspected lose their gradient."""

    def finish(self, state, ctx):
        return super().finish(state | {"x": state["x"].detach()}, ctx)


@pytest.mark.parametrize("size", SIZES)
def test_a_fault_in_the_gate_itself_is_found_at_every_size(size):
    _, checks = values(purified(Stuck(Everything(6, net(size)), guard()), size))
    assert checks[DIFFERENCES].state == "failed"


def test_a_gate_stands_half_open_for_any_images():
    gate = Gated(Everything(), guard())
    for n in range(1, len(X) + 1):
        suspected = gate.with_median_threshold(X[:n]).suspects(X[:n])
        assert int(suspected.sum()) >= (n + 1) // 2
        assert not suspected.all() or n == 1
    assert gate.with_median_threshold(X[:1].expand(4, -1, -1, -1)).suspects(X[:1]).all(), "of equal scores all"
    assert gate.guard.threshold == math.inf


def test_a_guarded_purifier_has_all_checks_of_the_purifier_alone():
    plain, checks = values(purified(Everything(steps=30)))
    guarded, more = values(Guarded(purified(Everything(steps=30)), guard()))
    assert guarded.passed, more
    assert {**more, SCORES: None} == {**checks, SCORES: None}
    assert guarded.steps == plain.steps == 20


@pytest.mark.parametrize("size", SIZES)
def test_a_fault_of_a_guarded_purifier_is_found_at_every_size(size):
    _, checks = values(Guarded(purified(Forgets(net(size), sigma=0.2, steps=6, lam=1e-3), size), guard()))
    assert {n for n, c in checks.items() if not c.passed} == {DIFFERENCES, STEP}


@pytest.mark.parametrize("size", SIZES)
def test_a_detectors_gradient_is_compared_where_it_declares_one(size):
    plain = Classifier(classifier(size), num_classes=4, input_shape=(1, 6, 6))
    assert values(Guarded(plain, guard()))[1][SCORES].passed
    _, checks = values(Guarded(plain, guard(fault=True)))
    assert {n for n, c in checks.items() if not c.passed} == {SCORES}
    stand_in = guard(fault=True)
    stand_in.detector.differentiable = False
    assert SCORES not in values(Guarded(plain, stand_in))[1]
    assert SCORES not in values(plain)[1]


@pytest.mark.parametrize("act", [nn.LeakyReLU, nn.SiLU])
def test_what_gradients_say_is_asked_of_what_stands_behind_detectors(act):
    plain = purified(Langevin(energy(act=act), eps=0.1, steps=9))
    gated = purified(Gated(plain.purifier, guard()))
    noise = Noise.of(0, len(X))
    expected = carries_information(plain, X, noise)
    assert expected == (act is nn.SiLU)
    assert carries_information(gated, X, noise) == carries_information(Guarded(plain, guard()), X, noise) == expected
