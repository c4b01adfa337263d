"""A linear classifier, whose smallest adversarial perturbations are known: attacks must find them.

For logits W x + b the distance of x to class k is (z_y - z_k) / |w_y - w_k|_q with q dual to the norm, as long as
the box does not bind: images lie around 1/2, and perturbations are small. Every eps stands in the widest gap
between the distances, so that no image is near the border.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from models import SHAPE, Linear, labels_of, seeded
from torch import Tensor

from bench.attacks.registry import find_attack
from bench.evaluation.view import attack_view
from bench.spec.threat import Norm, ThreatModel, distances
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier

N = 16


def problem(classes: int) -> tuple[Classifier, Tensor, Tensor]:
    weight = 3 * seeded(classes, 64, seed=11)
    # Images some way into each class, about 1/3 from the border in L2: a twentieth of the box in a pixel.
    towards = (weight / weight.norm(dim=1, keepdim=True))[torch.arange(N) % classes].view(N, *SHAPE)
    x = 0.5 + 0.03 * seeded(N, *SHAPE, seed=12) + 0.4 * towards
    bias = -0.5 * weight.sum(1)
    defense = Classifier(Linear(weight, bias), num_classes=classes, input_shape=SHAPE)
    return defense, x, labels_of(defense, x)


def optimum(defense: Classifier, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    weight = defense.network.weight.detach().double()  # type: ignore[union-attr,operator]
    logits = defense.network(x).detach().double()
    margins = logits.gather(1, y[:, None]) - logits
    slopes = (weight[y][:, None] - weight[None]).norm(p=1 if norm == "Linf" else 2, dim=2)
    ratio = margins / slopes
    ratio[torch.arange(len(y)), y] = float("inf")
    return ratio.amin(1)


def attacked(defense: Classifier, name: str, x: Tensor, y: Tensor, threat: ThreatModel, **params: Any) -> Tensor:
    attack = find_attack(name, params)
    with attack_view(defense, ViewSpec(), seed=0) as (view, _):
        k = defense.num_classes
        return attack.run(view, x, y, threat=threat, target=None, seed=7, num_classes=k, **params)


def between(best: Tensor, half: str) -> Fraction:
    """The middle of the widest gap between neighbouring distances, in the lower or the upper half of them."""
    ordered = best.sort().values
    first, last = (1, N // 2) if half == "lower" else (N // 2, N - 2)
    i = first + int((ordered[first + 1 : last + 2] - ordered[first : last + 1]).argmax())
    return Fraction(float((ordered[i] + ordered[i + 1]) / 2)).limit_denominator(10**6)


STRONG: list[tuple[str, Norm, int, dict[str, Any]]] = [
    ("autoattack:standard", "Linf", 2, {"n_iter": 40, "n_queries": 100}),
    ("autoattack:standard", "Linf", 10, {"n_iter": 40, "n_queries": 100}),
    ("autoattack:standard", "L2", 10, {"n_iter": 40, "n_queries": 100}),
    ("autoattack:apgd-ce", "Linf", 2, {"n_restarts": 1}),
    ("autoattack:apgd-ce", "L2", 2, {"n_restarts": 1}),
    ("autoattack:apgd-ce-best-loss", "Linf", 2, {"n_restarts": 1}),
    ("autoattack:apgd-t", "Linf", 5, {"n_restarts": 1}),
    ("autoattack:apgd-t", "L2", 10, {"n_restarts": 1}),
    ("autoattack:fab", "Linf", 3, {"n_iter": 40, "n_restarts": 1}),
    ("autoattack:fab", "L2", 10, {"n_iter": 40, "n_restarts": 1}),
    ("autoattack:fab-t", "L2", 3, {"n_iter": 40}),
    ("foolbox:LinfFastGradientAttack", "Linf", 2, {}),
    ("foolbox:LinfPGD", "Linf", 2, {"steps": 100}),
    ("foolbox:L2PGD", "L2", 2, {"steps": 100}),
    ("torchattacks:FGSM", "Linf", 2, {}),
    ("torchattacks:PGD", "Linf", 2, {"steps": 20}),
    ("torchattacks:PGDL2", "L2", 2, {"steps": 50}),
    ("torchattacks:APGD", "Linf", 2, {"steps": 50}),
    ("torchattacks:FAB", "L2", 4, {"steps": 50}),
]


@pytest.mark.parametrize("half", ["lower", "upper"])
@pytest.mark.parametrize(("name", "norm", "classes", "params"), STRONG)
def test_robust_accuracy_is_exact(name: str, norm: Norm, classes: int, params: dict[str, Any], half: str) -> None:
    defense, x, y = problem(classes)
    best = optimum(defense, x, y, norm)
    threat = ThreatModel(norm, between(best, half))
    x_adv = attacked(defense, name, x, y, threat, **params)
    assert (distances(x, x_adv)[norm] <= float(threat.eps) + threat.tolerance).all()
    correct = defense.network(x_adv).argmax(1) == y
    assert torch.equal(correct, best > float(threat.eps))


MINIMAL: list[tuple[str, Norm, tuple[int, ...], dict[str, Any]]] = [
    ("foolbox:L2DeepFoolAttack", "L2", (2, 10), {}),
    ("foolbox:LinfDeepFoolAttack", "Linf", (2, 10), {}),
    ("foolbox:L2CarliniWagnerAttack", "L2", (2, 10), {"steps": 300}),
    ("foolbox:DDNAttack", "L2", (2, 10), {}),
    # Its default steps are made for distances ten times as long; among ten classes it settles 29% too far.
    ("foolbox:L2FMNAttack", "L2", (2,), {"steps": 300, "max_stepsize": 0.05}),
    ("foolbox:LInfFMNAttack", "Linf", (2, 10), {"steps": 300}),
    # Walks along the border at which it arrives, which among ten classes is not always the nearest.
    ("foolbox:HopSkipJumpAttack", "L2", (2,), {"steps": 40, "init_attack": "DatasetAttack"}),
    ("torchattacks:DeepFool", "L2", (2, 10), {}),
]


@pytest.mark.parametrize(
    ("name", "norm", "params", "classes"), [(n, norm, p, k) for n, norm, ks, p in MINIMAL for k in ks]
)
def test_minimisation_finds_the_optimum(name: str, norm: Norm, params: dict[str, Any], classes: int) -> None:
    defense, x, y = problem(classes)
    best = optimum(defense, x, y, norm)
    attack = find_attack(name, params)
    assert attack.minimisation
    x_adv = attacked(defense, name, x, y, ThreatModel(norm, Fraction(1)), **params)
    assert (defense.network(x_adv).argmax(1) != y).all()
    ratio = distances(x, x_adv)[norm] / best
    assert ratio.min() > 1 - 1e-4
    assert ratio.max() < 1.25


def test_noise_in_the_ball_is_weaker_than_the_optimum() -> None:
    defense, x, y = problem(10)
    threat = ThreatModel("L2", between(optimum(defense, x, y, "L2"), "upper"))
    correct = defense.network(attacked(defense, "uniform", x, y, threat)).argmax(1) == y
    assert correct.all()
