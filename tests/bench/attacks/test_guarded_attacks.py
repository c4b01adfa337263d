"""Attacks on classifier and detector together, against a linear classifier with a quadratic detector."""

from __future__ import annotations

import pytest
import torch
from adaptive_runs import attacked, linear, margin
from torch import Tensor

from bench.attacks.registry import Unsupported
from defenses.core.defense import Classifier, Prediction, Purified
from defenses.core.detector import Detector, Guard, Guarded
from defenses.core.noise import Noise
from defenses.detectors.gated import Gated


class Sphere(Detector):
    """The squared distance to a point."""

    def __init__(self, middle: Tensor):
        super().__init__()
        self.register_buffer("middle", middle)

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        found: Tensor = (x - self.middle).square().flatten(1).sum(1)
        return found


def problem(share: float) -> tuple[Guarded, Tensor, Tensor, float]:
    """(defense, image, label, distance to the border); the detector allows `share` of that distance."""
    net, x, y = linear(1.0)
    x, y = x[:1], y[:1]
    weight = net.network.weight.detach()  # type: ignore[union-attr]
    far = float(margin(net, x)[0] / (weight[0] - weight[1]).norm())
    guard = Guard(Sphere(x), net, threshold=(share * far) ** 2, scale=far**2)
    return Guarded(net, guard), x, y, far


def succeeds(defense: Guarded, x_adv: Tensor, y: Tensor) -> bool:
    return succeeded(defense.decide(x_adv, Noise.of(0, 1)), y)


def succeeded(said: Prediction, y: Tensor) -> bool:
    return bool((said.logits.argmax(1) != y) & ~said.rejected)


@pytest.mark.parametrize(
    ("name", "share", "broken"),
    [("apgd", 1.05, True), ("adaptive", 1.05, True), ("pgd", 1.5, True)]  # constant steps of .3 of the way
    + [(name, 0.95, False) for name in ("apgd", "adaptive", "pgd")],
)
def test_succeeds_exactly_where_both_ends_can_be_reached(name, share, broken):
    defense, x, y, far = problem(share)
    x_adv = attacked(name, defense, x, y, "L2", f"{3 * far:.6f}", steps=100, detector=10.0)
    assert succeeds(defense, x_adv, y) is broken


@pytest.mark.parametrize("name", ["adaptive", "pgd"])
def test_a_refused_draw_is_none_that_a_majority_has_lost(name):
    from models import AddNoise

    guarded, x, y, far = problem(1.1)
    noisy = Guarded(Purified(AddNoise(0.01 * far), guarded.guard.classifier), guarded.guard)
    x_adv = attacked(name, noisy, x, y, "L2", f"{3 * far:.6f}", steps=60, detector=10.0, majority=9)
    assert sum(succeeded(noisy.decide(x_adv, Noise.of(seed, 1)), y) for seed in range(20)) > 10


def test_without_thought_for_the_detector_it_is_refused():
    defense, x, y, far = problem(1.05)
    x_adv = attacked("pgd", defense, x, y, "L2", f"{3 * far:.6f}", steps=20, restarts=1, losses=["ce"])
    wide = attacked("apgd", defense, x, y, "L2", f"{3 * far:.6f}", steps=20)
    assert not succeeds(defense, wide, y) or not succeeds(defense, x_adv, y)


@pytest.mark.parametrize("name", ["square", "spsa"])
def test_attacks_without_gradients_know_the_detector_too(name):
    defense, x, y, far = problem(6.0)
    more = {"queries": 1500} if name == "square" else {"steps": 60}
    assert succeeds(defense, attacked(name, defense, x, y, "L2", f"{5 * far:.6f}", detector=3.0, **more), y)


def test_the_weight_changes_nothing_where_nothing_is_suspected():
    defense, x, y, far = problem(100.0)
    runs = [attacked("apgd", defense, x, y, "L2", f"{0.5 * far:.6f}", steps=20, detector=d) for d in (0, 1.0)]
    torch.testing.assert_close(*runs, rtol=0, atol=1e-3)


def test_a_defense_without_a_detector_is_unsupported():
    net, x, y = linear(1.0)
    with pytest.raises(Unsupported, match="detector = 1 needs a detector"):
        attacked("apgd", net, x, y, detector=1)


def test_a_blind_look_at_detect_then_purify_stays_unsuspected():
    from models import Squash

    from bench.spec.view import ViewSpec

    guarded, x, y, far = problem(1.05)
    gated = Purified(Gated(Squash(2), guarded.guard), guarded.guard.classifier)
    spec = ViewSpec(gradient="blind")
    x_adv = attacked("apgd", gated, x, y, "L2", f"{3 * far:.6f}", spec=spec, steps=100, detector=10.0)
    assert succeeds(guarded, x_adv, y), "wrong for the bare classifier, and not suspected"
    assert (gated.logits(x_adv, Noise.of(0, 1)).argmax(1) != y).all()
