"""Certificates against an L2 attack through the noise: nothing changes inside the radius, and much does far outside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.attacks.registry import find_attack
from bench.evaluation.view import attack_view
from bench.spec.threat import ThreatModel, distances
from bench.spec.view import ViewSpec
from bench.tracks.smoothing.certify import CertificationProtocol, Radius, certified
from defenses import load_model
from defenses.data.dataset import load_dataset

AT, PROTOCOL = torch.arange(10), CertificationProtocol(0.25, n=1000)  # images of the test split
AGAIN = replace(PROTOCOL, n0=10_000)  # near the border, 100 draws do not tell the smoothed prediction
MODELS = [("smoothing", {}), ("denoise-once", {"sigma": "1/4"})]
APGD = {"steps": 30, "losses": ["ce", "margin"], "restarts": 2, "decided": 0.0}  # goes on where an image has fallen


def attacked(name: str, params: dict[str, Any], share: float) -> tuple[list[Radius], list[Radius], Tensor]:
    """Certificates of images, and of what an attack on their smoothed predictions makes of them.

    The ball of each image is a share of its radius; the last is how much of that the attack used.
    """
    x = load_dataset("digits").x[AT]
    defense, attack = load_model(name, "digits", **params), find_attack("bench:apgd", APGD)
    before = list(certified(defense, x, AT, PROTOCOL))
    moved, sizes = [], torch.tensor([share * b.radius for b in before], dtype=torch.float64)
    for i, (one, eps) in enumerate(zip(x.split(1), sizes.tolist(), strict=True)):
        given = {"threat": ThreatModel("L2", f"{eps:.6f}"), "target": None, "num_classes": 10, "indices": AT[i : i + 1]}
        with attack_view(defense, ViewSpec(runs=1), seed=0) as (view, _):
            moved.append(attack.run(view, one, torch.tensor([before[i].chosen]), seed=0, **given, **APGD))
    after = torch.cat(moved)
    return before, list(certified(defense, after, AT, AGAIN, seed=1)), distances(x, after)["L2"] / sizes


@pytest.mark.parametrize(("name", "params"), MODELS)
def test_an_attack_inside_the_radius_changes_no_prediction(name: str, params: dict[str, Any]) -> None:
    before, after, used = attacked(name, params, 0.99)
    assert min(b.radius for b in before) > 0
    assert 0.95 < used.min() <= used.max() < 1.0001
    assert [a.chosen for a in after] == [b.chosen for b in before]
    assert sum(a.count for a in after) < 0.95 * sum(b.count for b in before), "it is no attack"


@pytest.mark.parametrize(("name", "params"), MODELS)
def test_an_attack_far_outside_changes_some(name: str, params: dict[str, Any]) -> None:
    before, after, _ = attacked(name, params, 4.0)
    changed = [a for a, b in zip(after, before, strict=True) if a.chosen != b.chosen]
    assert len(changed) >= 5
    assert any(a.radius > 0 for a in changed), "a certificate of another class"
