"""The arithmetic of an attack's search ends with the search: verdicts are of float32 and of the same weights."""

import copy

import pytest
import torch
from models import SHAPE, AddNoise, Net, images
from torch import nn

from bench.evaluation import search
from bench.evaluation.isolation import preserve_global_state
from bench.evaluation.verdict import verdict
from bench.evaluation.view import AttackView, attack_view
from bench.spec.compute import Compute
from bench.spec.view import ViewSpec
from bench.tracks.poisoning.training import _predicted
from bench.tracks.smoothing.certify import CertificationProtocol, certified
from defenses.core.defense import Classifier, Purified, UserModule
from defenses.core.noise import Noise
from defenses.filters.gaussian_noise import GaussianNoise
from defenses.utils.errors import UserError
from defenses.utils.precision import check_precision, multiplied_in
from defenses.zoo.registry import load_model

BF16 = Compute("bf16")


def classifier():
    return Classifier(Net(), num_classes=10, input_shape=SHAPE)


class Dropping(Net):
    """Uses the global generator."""

    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))


DEFENSES = {
    "classifier": classifier,
    "user module": lambda: UserModule(Net(), stochastic=False),
    "random user module": lambda: UserModule(Dropping(), stochastic=True),
    "purified": lambda: Purified(AddNoise(0.1), classifier(), runs=2),
    "adp": lambda: load_model("adp", "digits", steps=2),
    "ebm-mcmc": lambda: load_model("ebm-mcmc", "digits", steps=2),
}


def outputs(view, x):
    """Return the logits and their gradient."""
    leaf = x.clone().requires_grad_()
    logits = view(leaf)
    (gradient,) = torch.autograd.grad(logits.square().sum(), leaf)
    return logits.detach(), gradient


def searched(defense, x, compute):
    with attack_view(defense, ViewSpec(), seed=1, compute=compute) as (view, _):
        return outputs(view, x)


@pytest.mark.parametrize("name", DEFENSES)
def test_a_search_in_bf16_answers_in_float32_and_leaves_nothing(name):
    defense, x = DEFENSES[name](), images(4)
    plain = searched(defense, x, Compute())
    fast = searched(defense, x, BF16)
    for a, b in zip(plain, fast, strict=True):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.95, name
    again = searched(defense, x, Compute())
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert "logits" not in vars(defense)


def test_attacks_that_query_the_defense_directly_search_in_bf16():
    defense, x = classifier(), images(4)
    noise = Noise.of(0, 4)
    plain = defense.logits(x, noise)
    with attack_view(defense, ViewSpec(), seed=1, compute=BF16) as (view, _):
        fast = view.defense.logits(x, noise, gradient="exact", runs=None)
        assert torch.equal(fast, view(x))
        other = type(view)(view.defense, view.spec, seed=2)
        assert torch.equal(fast, other(x))
    assert not torch.equal(plain, fast)


def test_a_copy_of_a_view_in_bf16_has_its_own_weights():
    with attack_view(classifier(), ViewSpec(), seed=1, compute=BF16) as (view, _):
        before, other = view(images(4)), copy.deepcopy(view)
        for p in other.parameters():
            p.zero_()
        assert not other(images(4)).any()
        assert torch.equal(before, view(images(4)))


def test_weights_are_in_the_other_order_during_the_search_alone():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(288, 10)
    )
    defense, x = UserModule(network.eval(), stochastic=False), torch.rand(2, 3, 8, 8)
    kept = [(p.data_ptr(), p.stride(), p.clone()) for p in defense.parameters()]
    plain = searched(defense, x, Compute())
    orders = []
    hook = network[2].register_forward_hook(
        lambda m, inputs, out: orders.extend(
            t.is_contiguous(memory_format=torch.channels_last) for t in (m.weight, *inputs)
        )
    )
    fast = searched(defense, x, Compute(channels_last=True))
    hook.remove()
    assert orders == [True, True]
    for a, b in zip(plain, fast, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for (pointer, stride, values), p in zip(kept, defense.parameters(), strict=True):
        assert (p.data_ptr(), p.stride()) == (pointer, stride)
        assert torch.equal(p, values)


class Viewing(nn.Module):
    """Needs features in the order NCHW."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        x = self.layer(x)
        return x.view(x.size(0), -1)


def test_a_model_that_needs_the_other_order_is_one_line():
    defense = UserModule(Viewing(), stochastic=False)
    with pytest.raises(UserError, match="this model needs the order NCHW; leave out channels_last"):
        searched(defense, torch.rand(2, 3, 8, 8), Compute(channels_last=True))


class Flags(nn.Module):
    """Records whether float32 matrices are multiplied in TF32."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(64, 10), []

    def forward(self, x):
        flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        self.seen.append(flags)
        return self.layer(x.flatten(1))


@pytest.fixture
def tf32_outside():
    """TF32 is on before and after, as somebody's script may have it."""
    with multiplied_in("tf32"):
        yield
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (True, True)


@pytest.mark.usefixtures("tf32_outside")
def test_tf32_is_of_the_search_alone(monkeypatch):
    monkeypatch.setattr(search, "check_precision", lambda *_: None)  # no CPU has it
    network = Flags()
    defense, x = UserModule(network, stochastic=False), images(2)
    for compute, flags in ((Compute("tf32"), (True, True)), (Compute(), (False, False)), (BF16, (False, False))):
        network.seen.clear()
        with preserve_global_state(), attack_view(defense, ViewSpec(), seed=0, compute=compute) as (view, _):
            view(x)
            assert network.seen == [flags]
            verdict(defense, x, torch.arange(2), draws=1, selection=0, seed=0)
        assert network.seen[1:] == [(False, False)]
    with preserve_global_state():
        defense.logits(x, Noise.of(0, 2))
    assert network.seen[-1] == (False, False)


@pytest.fixture
def newer_setting():
    """Set TF32 by torch's newer setting, which its older flags contradict; restored by hand."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision
    matmul.fp32_precision, conv.fp32_precision = "tf32", "ieee"
    yield
    assert (matmul.fp32_precision, conv.fp32_precision) == ("tf32", "ieee")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    matmul.fp32_precision, conv.fp32_precision = before


class NewerSetting(Flags):
    """Asks for TF32 when it is called, as torch recommends."""

    def forward(self, x):
        logits = super().forward(x)
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        return logits


@pytest.mark.usefixtures("newer_setting")
@pytest.mark.parametrize("network", [Flags, NewerSetting])
def test_verdicts_are_in_float32_beside_torchs_newer_settings(network):
    network = network()
    defense, x = UserModule(network, stochastic=False), images(2)
    for _ in range(2):
        network.seen.clear()
        verdict(defense, x, torch.arange(2), draws=1, selection=0, seed=0)
        assert set(network.seen) == {(False, False)}
        with preserve_global_state(), attack_view(defense, ViewSpec(), seed=0) as (view, _):
            view(x)


@pytest.mark.usefixtures("tf32_outside")
def test_certificates_and_verdicts_on_poisoned_models_are_in_float32():
    network, x = Flags(), images(1)
    base = Purified(GaussianNoise(sigma=0.5), Classifier(network, num_classes=10, input_shape=SHAPE))
    list(certified(base, x, torch.arange(1), CertificationProtocol(0.5, n0=2, n=2)))
    _predicted(base, x, seed=0)
    assert set(network.seen) == {(False, False)}


@pytest.mark.usefixtures("tf32_outside")
@pytest.mark.parametrize("compute", [Compute(), Compute("bf16", channels_last=True)])
def test_an_error_leaves_what_was(compute):
    defense = classifier()
    kept = [(p.data_ptr(), p.stride()) for p in defense.parameters()]
    with pytest.raises(ZeroDivisionError), attack_view(defense, ViewSpec(), seed=0, compute=compute):
        raise ZeroDivisionError
    assert "logits" not in vars(defense)
    assert [(p.data_ptr(), p.stride()) for p in defense.parameters()] == kept


def test_a_view_of_float32_calls_the_network_itself():
    with attack_view(classifier(), ViewSpec(), seed=0) as (view, _):
        assert view._network is not None
    assert AttackView(classifier(), ViewSpec(), seed=0)._network is not None


@pytest.mark.parametrize(
    ("precision", "device", "capability", "fits"),
    [
        ("float32", "cpu", None, True),
        ("bf16", "cpu", None, True),
        ("tf32", "cpu", None, False),
        ("tf32", "cuda", (7, 5), False),
        ("bf16", "cuda", (7, 5), False),
        ("float32", "cuda", (7, 5), True),
        ("tf32", "cuda", (8, 0), True),
        ("bf16", "cuda", (9, 0), True),
    ],
)
def test_a_precision_that_a_device_lacks_is_one_line(precision, device, capability, fits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    if fits:
        check_precision(precision, torch.device(device))
    else:
        with pytest.raises(UserError, match=f'precision is "{precision}", which the device "{device}" does not have'):
            check_precision(precision, torch.device(device))
