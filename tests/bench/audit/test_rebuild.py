"""Defenses made again from their fingerprints, and what has changed in these."""

from __future__ import annotations

import pytest
import torch

from bench.audit.reproduction.rebuild import changes, rebuild_defense
from defenses import load_model
from defenses.core.detector import guard_of
from defenses.core.noise import Noise
from defenses.data.dataset import load_dataset
from defenses.utils.parameters import canonical


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("undefended", {"filters": ["gaussian-noise"], "detector": "score-norm", "runs": 3}),
        ("adp", {"filters": ["bit-depth"], "detector": "score-norm", "suspected": "purify", "steps": 2}),
        ("score-norm", {"filters": ["median"], "fpr": "1/10"}),
    ],
)
def test_a_composition_is_made_again_whole(name, params):
    defense = load_model(name, "digits", **params)
    made = rebuild_defense(canonical(defense.provenance.fingerprint), "digits")
    assert made.problem == ""
    assert made.changes == ()
    x, noise = load_dataset("digits", "validation").x[:5], Noise.of(0, 5)
    assert torch.equal(made.defense.logits(x, noise), defense.logits(x, noise))
    before, after = guard_of(defense), guard_of(made.defense)
    assert after.threshold == before.threshold


def test_changes_of_fingerprints():
    before = {"name": "adp", "version": "1", "parameters": {"sigma": "1/4"}, "weights": {"adp": "a" * 64}}
    after = {"name": "adp", "version": "2", "parameters": {"sigma": "1/4", "tau": "1"}, "weights": {"adp": "b" * 64}}
    assert changes(before, before) == ()
    assert changes(before, after) == (
        "version: 1 then, 2 now",
        f"weights of adp: {'a' * 12}... then, {'b' * 12}... now",
        "parameter tau: none then, 1 now",
    )
