"""Budgets with which an attack searches little or nothing are told, in every suite."""

from __future__ import annotations

import pytest
import torch
from models import images, seeded
from suite_runs import threat_of
from torch import nn

from bench.attacks.budgets import searches_nothing, step_notes
from bench.attacks.libraries import foolbox, torchattacks
from bench.attacks.registry import attack_names, find_attack
from bench.evaluation.model_checks import are_probabilities, check_model
from defenses.core.defense import UserModule
from defenses.utils.errors import UserError

SEARCH = ("steps", "alpha", "rel_stepsize", "abs_stepsize", "stepsize", "step_size", "max_iterations", "iterations",
          "n_queries", "nb_iter", "c", "initial_const", "lr", "eta", "p_init")  # fmt: skip


def parameters_of_search():
    """Yield (attack, parameter) for the parameters that move an attack, of each library."""
    for module, suite in ((foolbox, "foolbox"), (torchattacks, "torchattacks")):
        for local in module.names():
            defaults = module.SOURCE.facts(local).parameters.defaults
            for key in SEARCH:
                value = defaults.get(key)
                if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                    yield f"{suite}:{local}", key
    yield from (("autoattack:fab", "eta"), ("autoattack:square", "p_init"), ("autoattack:apgd-ce", "rho"))


@pytest.mark.parametrize("value", [0, -0.5])
@pytest.mark.parametrize(("name", "key"), list(parameters_of_search()))
def test_what_moves_an_attack_is_told_at_zero_and_below(name, key, value):
    told = [w for w in find_attack(name, {key: value}).warnings if w.startswith(f"{key} = {value} lets it search")]
    assert len(told) == 1


@pytest.mark.parametrize("name", [n for n in attack_names() if not n.startswith(("own:", "autoattack:custom"))])
def test_no_default_is_told_to_search_nothing(name):
    attack = find_attack(name, {})
    assert not [w for w in attack.warnings if "lets it search" in w]
    for norm in ("Linf", "L2"):
        assert not [w for w in attack.notes(threat_of(norm), 10, {}) if "whole ball" in w]


def test_parameters_that_may_be_zero():
    assert searches_nothing({"decay": 1.0, "seed": 0, "flag": True}, {"decay": 0, "seed": -1, "flag": 0}) == ()
    assert len(searches_nothing({"decay": 1.0}, {"decay": -1})) == 1


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("foolbox:LinfPGD", {"steps": 10, "abs_stepsize": 0.001}, "10 steps of 0.001 cannot cross the ball"),
        ("foolbox:LinfPGD", {"steps": 10, "rel_stepsize": 0.05}, "cannot cross the ball"),
        ("foolbox:L2PGD", {"steps": 10, "rel_stepsize": 0.05}, "cannot cross the ball"),
        ("foolbox:LinfBasicIterativeAttack", {"steps": 4, "rel_stepsize": 0.2}, "cannot cross the ball"),
        ("foolbox:LinfPGD", {"steps": 10, "rel_stepsize": 3}, "only its corners are tried"),
        ("torchattacks:PGD", {"steps": 10, "alpha": 0.001}, "cannot cross the ball"),
        ("torchattacks:PGD", {"steps": 10, "alpha": 5.0}, "only its corners are tried"),
        ("torchattacks:MIFGSM", {"steps": 10, "alpha": 0.001}, "cannot cross the ball"),
    ],
)
def test_steps_that_do_not_fit_the_ball_are_told(name, params, words):
    norm = "L2" if "L2" in name else "Linf"
    assert any(words in note for note in find_attack(name, params).notes(threat_of(norm), 10, params))


def test_steps_that_fit_are_not_told():
    assert step_notes(10, 0.02, 0.2, "Linf") == ()
    assert step_notes(1, 0.5, 0.2, "Linf") == ()
    assert step_notes(10, 0.5, 0.2, "L2") == ()
    assert step_notes(None, 0.5, 0.2, "Linf") == step_notes(0, 0.5, 0.2, "Linf") == ()


class Squashed(nn.Module):
    def __init__(self, squash):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.linear.weight.data = seeded(10, 64) / 4
        self.squash = squash
        self.eval()

    def forward(self, x):
        return self.squash(5 * self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    ("squash", "words"),
    [
        (torch.sigmoid, "returns values in"),
        (lambda z: z.clamp(0, 1), "returns values in"),
        (lambda z: z.softmax(1), "returns probabilities"),
        (lambda z: z.sigmoid() / 2, "returns values in"),
    ],
)
def test_outputs_squashed_into_the_unit_interval_are_refused(squash, words):
    defense = UserModule(Squashed(squash), stochastic=False, num_classes=10)
    with pytest.raises(UserError, match=f"{words}.*return logits .remove the softmax, sigmoid or clamp"):
        check_model(defense, images(8), 10, "net")
    assert check_model(defense, images(8), 10, "net", probabilities=True)


@pytest.mark.parametrize("squash", [lambda z: z, lambda z: z.log_softmax(1), torch.relu, torch.tanh])
def test_other_outputs_are_logits(squash):
    defense = UserModule(Squashed(squash), stochastic=False, num_classes=10)
    assert not check_model(defense, images(8), 10, "net")
    assert not are_probabilities(torch.tensor([[0.0, 1.1]]))
