"""Attacks on training data: what is changed, and what the numbers of a trained model mean."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from bench.stats.bootstrap import over_trainings
from bench.tracks.poisoning.attacks import Perturbation, Poison, Poisoned, Trigger, poisoned
from bench.tracks.poisoning.tables import interval, shares_of
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network

TARGET, TRIGGER = 0, Trigger()


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits", "train")


def attack(data, kind: str, ratio: str, seed: int = 0, **more: object) -> Poisoned:
    perturbation = Perturbation(**more) if kind == "clean-label" else None
    given = {"target": TARGET, "trigger": TRIGGER, "seed": seed, "trained": lambda n: load_network(n, "digits")}
    return poisoned(data.x, data.y, Poison(kind, Fraction(ratio), perturbation), **given)


def test_the_trigger_is_a_white_square_bottom_right():
    x = torch.full((2, 3, 8, 6), 0.25)
    out = Trigger(size=3, value=1.0).put(x)
    assert (out[:, :, 5:, 3:] == 1).all()
    assert int((out != x).sum()) == 2 * 3 * 9
    assert (x == 0.25).all()


@pytest.mark.parametrize(("ratio", "n"), [("1/10", 100), ("1/100", 10), ("3/1000", 3)])
def test_badnets_changes_exactly_its_share(data, ratio, n):
    found = attack(data, "badnets", ratio)
    assert len(found.index) == n
    assert (data.y[found.index] != TARGET).all(), "images of the target's class teach nothing"
    assert (found.y[found.index] == TARGET).all()
    assert torch.equal(found.x[found.index], TRIGGER.put(data.x[found.index]))
    rest = torch.ones(len(data), dtype=torch.bool)
    rest[found.index] = False
    assert torch.equal(found.x[rest], data.x[rest])
    assert torch.equal(found.y[rest], data.y[rest])


@pytest.mark.parametrize("kind", ["badnets", "clean-label"])
def test_the_seed_decides_and_smaller_ratios_are_part_of_larger_ones(data, kind):
    small, large, other = attack(data, kind, "1/20"), attack(data, kind, "1/10"), attack(data, kind, "1/10", seed=1)
    assert set(small.index.tolist()) < set(large.index.tolist())
    assert set(large.index.tolist()) != set(other.index.tolist())
    again = attack(data, kind, "1/10")
    assert torch.equal(again.x, large.x)
    assert torch.equal(again.index, large.index)


def test_clean_label_keeps_every_label(data):
    found = attack(data, "clean-label", "1/2", eps=0.1)
    of_target = int((data.y == TARGET).sum())
    assert len(found.index) == int(of_target / 2 + 0.5)
    assert torch.equal(found.y, data.y)
    assert (data.y[found.index] == TARGET).all()
    change = (found.x - data.x)[found.index]
    corner = torch.zeros(8, 8, dtype=torch.bool)
    corner[-3:, -3:] = True
    assert (found.x[found.index][..., corner] == 1).all()
    assert 0.05 < float(change[..., ~corner].abs().max()) <= 0.1 + 1e-6
    assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1
    network = load_network("undefended", "digits")
    bare = network(data.x[found.index]).argmax(1) == TARGET
    fooled = network(attack(data, "clean-label", "1/2", eps=0.3).x[found.index]).argmax(1) == TARGET
    assert float(bare.float().mean()) > 0.95
    assert float(fooled.float().mean()) < 0.5


def test_the_control_is_untouched(data):
    found = attack(data, "none", "0")
    assert found.x is data.x
    assert found.y is data.y
    assert len(found.index) == 0


@pytest.mark.parametrize(
    ("kind", "ratio", "message"),
    [
        ("badnets", "1/10000", "poisons 0 of 1000"),
        ("badnets", "1", "only .* are not of class 0"),
        ("clean-label", "1/999", "0 of"),
    ],
)
def test_ratios_that_cannot_be_are_one_clear_line(data, kind, ratio, message):
    with pytest.raises(UserError, match=message):
        attack(data, kind, ratio)


# --- what is measured


def test_metrics_of_known_answers():
    labels = [0, 0, 1, 2, 2]
    found = shares_of([[0, 1, 1, 2, 0]], [[2, 2, 0, 2, 1]], labels, 0)
    assert found["clean"].tolist() == [[1, 0, 1, 1, 0]]
    assert found["asr"].tolist() == [[1, 0, 0]], "images of the target's class do not count"
    assert found["robust"].tolist() == [[0, 1, 0]]


def test_a_model_that_does_not_see_the_corner_has_the_base_rate(data):
    network = load_network("undefended", "digits")

    def blind(x):
        return network(x * (1 - TRIGGER.put(torch.zeros_like(x)))).argmax(1).numpy()[None]

    found = shares_of(blind(data.x), blind(TRIGGER.put(data.x)), data.y.numpy(), TARGET)
    others = data.y.numpy() != TARGET
    assert found["asr"].mean() == (blind(data.x)[0, others] == TARGET).mean()
    assert found["robust"].mean() == found["clean"][:, others].mean()


def test_intervals_are_over_images_and_trainings():
    shares = np.random.default_rng(0).integers(0, 2, (3, 50)).astype(float)
    found, expected = interval(shares), over_trainings(shares)
    assert (found.value, found.low, found.high, found.n) == (expected.value, expected.low, expected.high, 50)
    none = interval(np.zeros((3, 100)))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(0.037, abs=1e-3)  # Wilson's: z^2 / (n + z^2)
