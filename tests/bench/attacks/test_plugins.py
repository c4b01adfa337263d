"""The attacks that the harness brings itself, and those of a user."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from models import classifier, images, labels_of
from suite_runs import EPS, run, threat_of

from bench.attacks.registry import find_attack
from bench.spec.threat import Norm, ThreatModel, distances
from defenses.utils.errors import UserError


@pytest.mark.parametrize("norm", list(EPS))
def test_uniform_noise_depends_on_the_index_and_not_on_the_batch(norm: Norm) -> None:
    defense, x = classifier(), images(8)
    y, attack, threat = labels_of(defense, x), find_attack("uniform"), threat_of(norm)
    index = torch.tensor([40, 3, 17, 5, 6, 99, 1, 0])
    whole = run(attack, defense, x, y, threat, {}, indices=index)
    part = run(attack, defense, x[2:5], y[2:5], threat, {}, indices=index[2:5])
    assert torch.equal(part, whole[2:5])
    assert not torch.equal(run(attack, defense, x, y, threat, {}, indices=index, seed=6), whole)


@pytest.mark.parametrize(("norm", "power"), [("Linf", 64), ("L2", 64), ("L1", 64)])
def test_uniform_noise_fills_the_ball(norm: Norm, power: int) -> None:
    """In the ball of dimension d the radius to the power d is uniform on [0, 1] (the box does not bind here)."""
    x = torch.full((2000, 1, 8, 8), 0.5)
    threat = ThreatModel(norm, "1/10")
    x_adv = run(find_attack("uniform"), classifier(), x, torch.zeros(2000, dtype=torch.long), threat, {})
    filled = ((distances(x, x_adv)[norm] / 0.1) ** power).sort().values
    # Kolmogorov and Smirnov: beyond 1.95 / sqrt(n) once in a thousand.
    assert (filled - (torch.arange(2000) + 0.5) / 2000).abs().max() < 1.95 / math.sqrt(2000) + 1e-3
    assert abs(float((x_adv - x).mean())) < 1e-3


def test_uniform_noise_of_pixels_changes_as_many_as_it_may() -> None:
    defense, x = classifier(channels=3), images(8, 3)
    x_adv = run(find_attack("uniform"), defense, x, labels_of(defense, x), threat_of("L0"), {})
    assert (distances(x, x_adv)["L0"] == 5).all()


OWN = """
import torch

def shift(view, x, y, *, threat, target, seed, num_classes, indices, amount=0.5):
    return x.add_(amount * float(threat.eps) * torch.rand(1)).clamp_(0, 1)

def plain(view, x, y, threat):
    return x

def needs(view, x, y, *, steps):
    return x

plain.minimisation = True
"""


def test_a_function_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my_attack.py"
    file.write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    defense, x = classifier(), images(4)
    y, before, threat = labels_of(defense, x), x.clone(), threat_of("Linf")
    attack = find_attack(f"{file}:shift", {"amount": 0.25})
    first, again = (run(attack, defense, x, y, threat, {"amount": 0.25}) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(x, before)
    assert 0 < distances(x, first)["Linf"].max() <= 0.025 + 1e-6
    assert attack.version.startswith("my_attack.py ")
    assert not attack.minimisation
    assert torch.equal(
        run(find_attack("my_attack:shift"), defense, x, y, threat, {}), run(attack, defense, x, y, threat, {})
    )
    assert find_attack("my_attack:plain").minimisation
    assert torch.equal(run(find_attack("my_attack.py:plain"), defense, x, y, threat, {}), x)
    with pytest.raises(UserError, match="did you mean shift"):
        find_attack(f"{file}:shft")
    with pytest.raises(UserError, match="did you mean amount"):
        find_attack("my_attack.py:shift", {"amuont": 1})
    with pytest.raises(UserError, match='needs the parameter "steps"'):
        find_attack("my_attack.py:needs")
