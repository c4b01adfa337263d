"""Gradient modes against closed forms, the deployed values, and each other."""

import math

import pytest
import torch
from linear_purifier import WEIGHTS, Affine, B, D, Triple, X, affine, energy, gradient, linear
from models import AddNoise
from torch import nn

from bench.evaluation.certificates.information import carries_information, information_note
from bench.evaluation.view import attack_view
from bench.spec.view import ViewSpec
from defenses import load_model
from defenses.core.defense import Purified
from defenses.core.gradient_modes import MODES
from defenses.core.noise import Noise
from defenses.core.purify import purify, unrolled
from defenses.data.dataset import load_dataset
from defenses.purifiers.adp import ADP
from defenses.purifiers.langevin import Langevin
from defenses.utils.errors import UserError

OTHER_VALUES = ("blind", "surrogate")


def closed_form(defense, mode, runs):
    at_image = (WEIGHTS @ defense.classifier.network[1].weight).expand(B, D)
    purifier = defense.purifier
    matrix = {
        "exact": 0.75 * torch.linalg.matrix_power(purifier.matrix, 8),
        "surrogate": 0.75 * torch.linalg.matrix_power(purifier.matrix, 2),
        "bpda-denoiser": 0.75 * purifier.single,
        "bpda-autoencoder": 3 * torch.eye(D),
        "forward-noise": 0.75 * torch.eye(D),
    }.get(mode, torch.eye(D))
    expected = at_image @ matrix
    if mode == "joint-score":
        return (expected.sign() + (0.5 - X.flatten(1)).sign()) / 2
    if mode == "joint-full":
        image = purify(purifier, X.repeat_interleave(runs, 0), Noise.of(4, B).copies(runs))
        return (expected.sign() + (image.view(B, runs, D).mean(1) - X.flatten(1)).sign()) / 2
    return expected


@pytest.mark.parametrize("how", ["grad", "backward", "retain"])
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("mode", [m for m in MODES if m not in ("smooth", "difference", "bpda-filters")])
def test_every_mode_has_the_gradient_of_its_definition(mode, runs, how):
    defense = affine()
    assert mode in defense.gradients
    _, grad = gradient(defense, mode, how=how, runs=runs)
    torch.testing.assert_close(grad.flatten(1), closed_form(defense, mode, runs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("combine", ["softmax-mean", "logit-mean"])
@pytest.mark.parametrize("name", ["adp", "affine", "leaky", "smooth"])
def test_values_are_the_deployed_ones_to_the_last_bit(name, combine):
    purifier = {
        "adp": lambda: ADP(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh()), sigma=0.2, steps=6, tau=0.0),
        "affine": Affine,
        "smooth": lambda: Langevin(energy(nn.SiLU), eps=0.05, steps=6),
        "leaky": lambda: Langevin(energy(nn.LeakyReLU), eps=0.05, steps=6),
    }[name]()
    defense = Purified(purifier, linear(), runs=3, combine=combine, autoencoder=Triple()).requires_grad_(False)
    deployed = defense.logits(X, Noise.of(4, B))
    for mode in defense.gradients:
        logits, _ = gradient(defense, mode)
        assert torch.equal(logits, deployed) == (mode not in OTHER_VALUES), mode
        assert torch.equal(defense.logits(X, Noise.of(4, B), gradient=mode), logits), mode


def test_the_surrogate_is_the_purifier_of_a_quarter_of_the_steps():
    defense = affine(runs=1)
    logits, _ = gradient(defense, "surrogate")
    quarter = Purified(Affine(steps=2), linear(), runs=1)
    assert torch.equal(logits, quarter.logits(X, Noise.of(4, B)))
    assert [Affine(k).surrogate().steps for k in (2, 7, 8, 100)] == [1, 1, 2, 25]
    assert Affine(1).surrogate() is None
    assert defense.purifier.steps == 8


def test_a_purifier_that_computes_its_steps_has_no_surrogate_of_ours():
    class Timed(AddNoise):
        @property
        def steps(self):
            return 4

    assert Timed(0.1).surrogate() is None


def test_copies_of_an_expectation_vote_in_joint_modes():
    defense = affine(runs=1)
    with attack_view(defense, ViewSpec("joint-full", eot=4), seed=3) as (view, _):
        x = X.clone().requires_grad_()
        (grad,) = torch.autograd.grad((view(x) * WEIGHTS).sum(), x)
    votes = grad.unique()
    assert set((2 * votes).tolist()) <= {-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0}
    assert len(votes) > 3


@pytest.mark.parametrize("mode", ["joint-score", "joint-full"])
def test_runs_of_one_copy_give_the_signs_of_a_mean_in_joint_modes(mode):
    defense = affine(runs=1)
    with attack_view(defense, ViewSpec(mode, runs=4), seed=3) as (view, _):
        x = X.clone().requires_grad_()
        (grad,) = torch.autograd.grad((view(x) * WEIGHTS).sum(), x)
    assert set((2 * grad).unique().tolist()) <= {-2.0, -1.0, 0.0, 1.0, 2.0}


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_number_of_a_surrogate_is_its_steps(steps):
    defense = affine(runs=1)
    fewer = Purified(Affine(steps=steps), linear(), runs=1)
    mode = f"surrogate:{steps}"
    values, grad = gradient(defense, mode)
    expected_values, expected = gradient(fewer, "exact")
    assert torch.equal(values, expected_values)
    assert torch.equal(defense.logits(X, Noise.of(4, B), gradient=mode), expected_values)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize(("mode", "attribute"), [("smooth", 0.05 / 3), ("difference", 0.05)])
def test_numbers_left_out_are_the_purifiers_own(mode, attribute):
    defense = Purified(Langevin(energy(nn.LeakyReLU), eps=0.05, steps=4), linear(), runs=1)
    default = gradient(defense, mode)[1]
    assert torch.equal(gradient(defense, f"{mode}:{attribute:.20f}")[1], default)
    assert not torch.equal(gradient(defense, f"{mode}:1/2")[1], default)


def test_numbers_have_one_spelling_and_the_label_tells_them():
    assert ViewSpec("smooth:0.10").gradient == "smooth:1/10"
    assert ViewSpec("smooth:0.10", eot=8) == ViewSpec("smooth:1/10", eot=8)
    assert ViewSpec("surrogate:5", eot=8).label(True) == "surrogate:5, 8 EOT x S runs"
    assert (ViewSpec("surrogate:5").mode, ViewSpec("exact").mode) == ("surrogate", "exact")


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("exact:3", 'the gradient mode "exact" takes no number, as surrogate, smooth, difference do; leave out ":3"'),
        ("smooth:wide", "width of the activations; it must be a positive number"),
        ("smooth:", "it must be a positive number"),
        ("difference:-1/10", "it must be a positive number"),
        ("surrogate:1/2", "is its steps; it must be a whole number, at least 1"),
        ("surrogate:0", "it must be a whole number, at least 1"),
        ("smoth:1/10", 'unknown gradient mode "smoth"; did you mean smooth?'),
    ],
)
def test_a_number_that_is_none_is_one_line(mode, text):
    with pytest.raises(UserError) as raised:
        ViewSpec(mode)
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


class Fixed(Affine):
    """A purifier with a surrogate of a fixed number of steps."""

    def surrogate(self):
        return Affine(3)


@pytest.mark.parametrize(
    ("purifier", "mode", "text"),
    [
        (Affine, "surrogate:8", "a surrogate of 8 steps is no cheaper than the purifier of 8; take fewer"),
        (Fixed, "surrogate:3", r'Fixed.surrogate\(\) takes no number; let it take one, or leave out ":3"'),
        (Affine, "bpda-autoencoder", r"Purified\(..., autoencoder=network\) gives it"),
    ],
)
def test_a_mode_that_does_not_fit_the_purifier_is_refused_before_any_work(purifier, mode, text):
    with (
        pytest.raises(UserError, match=text),
        attack_view(Purified(purifier(), linear()), ViewSpec(mode), seed=0),
    ):
        pass


def test_a_gradient_that_is_none_is_not_hidden_behind_its_sign():
    x = X.clone().requires_grad_()
    logits = affine().logits(x, Noise.of(4, B), gradient="joint-score")
    (grad,) = torch.autograd.grad((logits * torch.tensor(math.nan)).sum(), x)
    assert grad.isnan().all()


@pytest.mark.parametrize("combine", ["softmax-mean", "logit-mean"])
@pytest.mark.parametrize("name", ["adp", "ebm-mcmc"])
def test_modes_of_the_registered_purifiers(name, combine):
    defense, x = load_model(name, "digits", runs=2, combine=combine), load_dataset("digits").x[:6]
    assert {"exact", "bpda", "blind", "bpda-denoiser", "surrogate", "joint-score"} < set(defense.gradients)
    for mode in defense.gradients:
        with attack_view(defense, ViewSpec(mode, eot=2), seed=1) as (view, meter):
            v = x.clone().requires_grad_()
            view(v)[:, 3].sum().backward()
        assert v.grad.isfinite().all(), mode
        assert v.grad.flatten(1).any(1).all(), mode
        assert meter.backwards > 0


def test_a_mode_that_is_lacking_is_one_line_and_names_the_others():
    defense = Purified(AddNoise(0.1), linear())
    assert defense.gradients == ("exact", "bpda", "blind", "forward-noise")
    text = 'this defense has no gradient mode "smooth"; it has: exact, bpda, blind, forward-noise'
    for x in (X, X.clone().requires_grad_()):
        with pytest.raises(UserError) as raised:
            defense.logits(x, Noise.of(0, B), gradient="smooth")
        assert str(raised.value) == text
    with pytest.raises(UserError, match='unknown gradient mode "bpda-denoise"; did you mean bpda-denoiser'):
        defense.logits(X, Noise.of(0, B), gradient="bpda-denoise")
    with pytest.raises(UserError, match="did you mean smooth"):
        ViewSpec("smoth")


class Functional(nn.Module):
    """A piecewise linear energy with an activation that is no module."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (energy(nn.SiLU)[i] for i in (1, 3))

    def forward(self, x):
        return self.second(self.first(x.flatten(1)).relu()).relu().sum(1)


@pytest.mark.parametrize(
    ("purifier", "informative", "advice"),
    [
        (lambda: Langevin(energy(nn.LeakyReLU), eps=0.05, steps=4), False, "use smooth or difference"),
        (lambda: Langevin(energy(nn.ReLU), eps=0.05, steps=4), False, "use smooth or difference"),
        (lambda: Langevin(Functional(), eps=0.05, steps=4), False, "use difference"),
        (lambda: Langevin(energy(nn.SiLU), eps=0.05, steps=4), True, ""),
        (lambda: AddNoise(0.1), True, ""),
        (lambda: ADP(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.LeakyReLU()), steps=3), True, ""),
    ],
)
def test_exact_gradients_that_are_the_identity_are_found(purifier, informative, advice):
    defense = Purified(purifier(), linear(), runs=2).requires_grad_(False)
    assert carries_information(defense, X, Noise.of(0, B)) == informative
    note = information_note(defense, X, Noise.of(0, B), label="mine")
    assert note.endswith(advice)
    assert note.startswith("exact gradients through mine equal bpda") == (not informative)


def test_a_defense_without_a_purifier_carries_information():
    assert carries_information(linear(), X, Noise.of(0, B))


def test_exact_is_what_plain_autograd_gives():
    defense, x = affine(runs=1), X.clone().requires_grad_()
    image = unrolled(defense.purifier, x, Noise.of(4, B).copies(1))
    (expected,) = torch.autograd.grad((defense.classifier.logits(image, Noise.of(4, B)) * WEIGHTS).sum(), x)
    torch.testing.assert_close(gradient(defense, "exact")[1], expected)
