"""Runs of `bench:...` attacks on a linear classifier, shared by their tests."""

from __future__ import annotations

from typing import Any

import torch
from models import SHAPE, Linear, seeded
from torch import Tensor

from bench.attacks.registry import find_attack
from bench.evaluation.view import attack_view
from bench.spec.threat import Norm, ThreatModel, target_labels
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier, Defense

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
INNER = {"Linf": "1/10", "L2": "1/2", "L1": "2"}
N = 8


def linear(gap: float, classes: int = 2) -> tuple[Classifier, Tensor, Tensor]:
    """Logits W x + b; images around 1/2, `gap` from the border to the second class."""
    weight = seeded(classes, 64, seed=3)
    x = 0.5 + 0.02 * seeded(N, *SHAPE, seed=4)
    y = torch.zeros(N, dtype=torch.int64)
    bias = torch.zeros(classes)
    bias[0] = gap - ((weight[0] - weight[1]) @ x.flatten(1).T).mean()
    return Classifier(Linear(weight, bias), num_classes=classes, input_shape=SHAPE), x, y


def margin(defense: Classifier, x: Tensor) -> Tensor:
    """Of class 0 over class 1."""
    z = defense.network(x).detach()
    return z[:, 0] - z[:, 1]


def reach(defense: Classifier, norm: Norm, eps: float) -> float:
    """By how much the margin can fall; no pixel comes to the box, but under L1, where pixels end there."""
    w = defense.network.weight.detach()  # type: ignore[union-attr]
    slope = (w[0] - w[1]).abs()
    if norm == "Linf":
        return float(eps * slope.sum())
    return float(eps * slope.norm()) if norm == "L2" else float("nan")


def l1_reach(defense: Classifier, x: Tensor, eps: float) -> Tensor:
    """The steepest pixels, each as far as the box allows, until eps is used up."""
    w = defense.network.weight.detach()  # type: ignore[union-attr]
    slope = (w[1] - w[0]).expand(len(x), -1)
    room = torch.where(slope > 0, 1 - x.flatten(1), x.flatten(1))
    order = slope.abs().argsort(1, descending=True)
    used = room.gather(1, order)
    before = used.cumsum(1) - used
    spent = torch.minimum(used, (eps - before).clamp_min(0))
    return (spent * slope.abs().gather(1, order)).sum(1)


def attacked(
    name: str,
    defense: Defense,
    x: Tensor,
    y: Tensor,
    norm: Norm = "Linf",
    eps: str | None = None,
    *,
    spec: ViewSpec | None = None,
    targets: str = "none",
    seed: int = 7,
    indices: Tensor | None = None,
    **params: Any,
) -> Tensor:
    threat = ThreatModel(norm, eps or INNER[norm], targets=targets)  # type: ignore[arg-type]
    classes = defense.num_classes or 10
    target = target_labels(threat, y, torch.arange(len(x)), classes, 0)
    with attack_view(defense, spec or ViewSpec(), seed=0) as (view, _):
        run = find_attack(f"bench:{name}", params).run
        return run(view, x, y, threat=threat, target=target, seed=seed, num_classes=classes, indices=indices, **params)  # type: ignore[no-any-return]
