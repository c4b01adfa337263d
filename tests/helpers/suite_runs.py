"""Run an attack as the harness does, at a small budget: shared by the tests of the suites."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.attacks.libraries import foolbox
from bench.attacks.registry import Attack, Unsupported, attack_names, find_attack
from bench.evaluation.view import attack_view
from bench.spec.threat import Norm, ThreatModel, target_labels
from bench.spec.view import ViewSpec
from defenses.core.defense import Defense
from defenses.utils.errors import UserError

EPS = {"Linf": "1/10", "L2": "1", "L1": "5", "L0": "5"}
SEED = 5
# Small budgets, given to every attack that takes them.
BUDGET = {"steps": 12, "n_iter": 10, "n_queries": 40, "queries": 40, "n_restarts": 1, "max_iterations": 10}


def budget(name: str) -> dict[str, Any]:
    params: dict[str, Any] = {"attacks": ["apgd-ce", "square"]} if name == "autoattack:custom" else {}
    for key, value in BUDGET.items():
        try:
            find_attack(name, {**params, key: value})
        except UserError:
            continue
        params[key] = value
    return params


def threat_of(norm: Norm, targets: str = "none") -> ThreatModel:
    return ThreatModel(norm, EPS[norm], targets=targets)  # type: ignore[arg-type]


def run(
    attack: Attack, defense: Defense, x: Tensor, y: Tensor, threat: ThreatModel, params: dict[str, Any], **other: Any
) -> Tensor:
    classes = defense.num_classes or 10
    target = target_labels(threat, y, torch.arange(len(x)), classes, 0)
    with attack_view(defense, other.pop("spec", ViewSpec()), seed=3) as (view, _):
        given = {"target": target, "seed": SEED, "num_classes": classes} | other
        return attack.run(view, x, y, threat=threat, **given, **params)  # type: ignore[no-any-return]


def first_that_runs(name: str, defense: Defense, x: Tensor, y: Tensor, targets: str = "none") -> Any:
    """(norm, x_adv) of the first norm that an attack supports; else the reasons."""
    attack, params, reasons = find_attack(name, budget(name)), budget(name), []
    for norm in EPS:
        try:
            return norm, run(attack, defense, x, y, threat_of(norm, targets), params)  # type: ignore[arg-type]
        except Unsupported as reason:
            reasons.append(str(reason))
    return None, reasons


def class_of(name: str) -> str:
    """The name of an attack under its class's own name; aliases are Foolbox's."""
    suite, _, local = name.partition(":")
    return f"{suite}:{foolbox.SOURCE.class_name(local)}" if suite == "foolbox" else name


_OURS = ("none", "uniform", "autoattack", "foolbox", "torchattacks", "bench")
ALL = [n for n in attack_names() if n.partition(":")[0] in _OURS]  # not those of suites that happen to be installed
# Brendel and Bethge's take 10 to 40 s each to be compiled by numba; an alias is its class.
NAMES = [n for n in ALL if class_of(n) == n and not n.endswith("BrendelBethgeAttack")]
