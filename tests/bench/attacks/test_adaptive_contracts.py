"""`bench:...`: what attacks of our own refuse, and what they keep to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from adaptive_runs import N, attacked, linear
from models import SHAPE, AddNoise, classifier, images, labels_of
from torch import Tensor

from bench.attacks.adaptive.problem import Problem
from bench.attacks.adaptive.program import program_of, scheduled
from bench.attacks.adaptive.settings import settings_of
from bench.attacks.base import AttackRequest
from bench.attacks.registry import Unsupported, attack_names, find_attack
from bench.evaluation.view import attack_view
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier, Purified, UserModule
from defenses.core.noise import Noise
from defenses.utils.errors import UserError
from defenses.utils.parameters import canonical


def test_budget_is_counted() -> None:
    defense, x, y = linear(50.0)
    problem = Problem.of(AttackRequest(x, y, ThreatModel("Linf", "1/10"), None, 0, 2, None, {}))  # type: ignore[arg-type]
    chosen = settings_of("apgd", {"steps": 20})
    with attack_view(defense, ViewSpec(), seed=0) as (view, meter):
        tally = scheduled(program_of("apgd", view, problem, chosen), view, chosen)
    assert meter.forwards == tally.rows == view.queries
    assert meter.backwards == 20 * N


def test_out_of_memory_goes_on_with_fewer_rows() -> None:
    bare, x = classifier(), images(6)

    class Small(Purified):
        def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
            if len(x) > 20:
                raise torch.OutOfMemoryError("out of memory")
            return super().logits(x, noise, gradient=gradient, runs=runs)

    y = labels_of(bare, x)
    free, tight = Purified(AddNoise(0.2), bare), Small(AddNoise(0.2), bare)
    assert torch.allclose(
        attacked("apgd", free, x, y, steps=6), attacked("apgd", tight, x, y, steps=6, rows=500), atol=1e-5
    )


def test_random_modules_of_somebody_elses_are_asked_copy_by_copy() -> None:
    bare, x = classifier(), images(6)
    y = labels_of(bare, x)

    class Noisy(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) <= 6
            return bare.network(x + 0.1 * torch.randn_like(x))

    user_module = UserModule(Noisy(), stochastic=True, num_classes=10)
    state = torch.get_rng_state()
    result = attacked("apgd", user_module, x, y, eps="1/100", steps=5, decided=0)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(result, attacked("apgd", user_module, x, y, eps="1/100", steps=5, decided=0))


def test_not_finite_is_an_error() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :10] / 0

    x = images(2)
    defense = Classifier(Broken(), num_classes=10, input_shape=SHAPE)
    with pytest.raises(FloatingPointError, match="not finite"):
        attacked("apgd", defense, x, torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("name", ["apgd", "pgd", "adaptive"])
def test_no_gradient_is_an_error_and_never_robust(name: str) -> None:
    class Hides(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :10].detach()

    defense = Classifier(Hides(), num_classes=10, input_shape=SHAPE)
    with pytest.raises(RuntimeError, match="no gradient to the image"):
        attacked(name, defense, images(2), labels_of(defense, images(2)))


def test_names() -> None:
    assert {"bench:adaptive", "bench:pgd", "bench:apgd", "bench:square", "bench:spsa", "bench:transfer"} <= set(
        attack_names()
    )


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("adaptive", {"step": 5}, "did you mean steps"),
        ("adaptive", {"steps": 0}, "steps is 0; it must be a whole number, at least 1"),
        ("adaptive", {"steps": True}, "whole number"),
        ("adaptive", {"eot": [8, 4]}, "eot is"),
        ("adaptive", {"losses": ["ce", "dlrr"]}, "did you mean dlr"),
        ("adaptive", {"losses": []}, "a list of"),
        ("adaptive", {"decided": 0.7}, "less than 0.5"),
        ("adaptive", {"on_top": 1}, "true or false"),
        ("adaptive", {"majority": 64}, "odd number, as 65"),
        ("adaptive", {"majority": 0}, "a whole number, at least 1"),
        ("adaptive", {"screen": 65}, r"\[draws, submissions\], as \[65, 5\]"),
        ("adaptive", {"screen": [4, 5]}, "5 submissions cannot be judged by 4 draws"),
        ("adaptive", {"screen": [65, 5], "majority": 65}, "two rules for one image"),
        ("square", {"steps": 5}, "unknown parameter"),
        ("adaptiv", {}, "did you mean bench:adaptive"),
    ],
)
def test_bad_parameters(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_attack(f"bench:{name}", params)


@pytest.mark.parametrize(("params", "words"), [({"screen": [65, 5]}, "Rob(M)"), ({"majority": 65}, "a majority vote")])
def test_rows_of_images_that_are_let_go_say_what_they_are_no_evidence_of(params: dict[str, Any], words: str) -> None:
    assert not any("stops at" in w for w in find_attack("bench:apgd", {}).warnings)
    said = [w for w in find_attack("bench:apgd", params).warnings if "stops at images" in w]
    assert len(said) == 1
    assert f"read {words} in its row" in said[0]


def test_what_does_not_go_together() -> None:
    bare, x = classifier(3), images(2)
    y = labels_of(bare, x)
    with pytest.raises(Unsupported, match="L0"):
        attacked("adaptive", bare, x, y, "L0", "5")
    with pytest.raises(Unsupported, match="eot = 4"):
        attacked("adaptive", bare, x, y, spec=ViewSpec(eot=4))
    with pytest.raises(Unsupported, match="needs 4 classes"):
        attacked("adaptive", bare, x, y, losses=["dlr-targeted"])
    with pytest.raises(Unsupported, match="one whole"):
        attacked("transfer", bare, x, y)


@pytest.mark.parametrize(
    ("name", "params", "view", "label"),
    [
        ("bench:adaptive", {}, {}, "exact, 2-16 EOT x 1 run"),
        ("bench:apgd", {}, {}, "exact, 4-64 EOT x 1 run"),
        ("bench:pgd", {"on_top": True}, {"gradient": "bpda"}, "bpda, 8 EOT x S runs"),
        ("bench:apgd", {"eot": [2, 9]}, {"runs": 3}, "exact, 2-9 EOT x 3 runs"),
        ("bench:apgd", {}, {"seed": "known"}, "exact, seed known"),
    ],
)
def test_a_label_tells_the_copies_that_the_attack_makes(name, params, view, label):
    from bench.board.load import read_board

    attack = {"name": name, "params": params, "views": [{"gradient": "exact"} | view]}
    raw = {"dataset": "digits", "indices": "first-4", "threat": {"norm": "Linf", "eps": "1/5"}, "attack": [attack]}
    cells = read_board({**raw, "defense": [{"name": "adp"}], "verdict": {"draws": 5}}, "labels").cells()
    assert label in {c.view_label for c in cells}
    again = [replace(c, attack=replace(c.attack, params=canonical(c.attack.params))) for c in cells]
    assert [c.view_label for c in again] == [c.view_label for c in cells]
