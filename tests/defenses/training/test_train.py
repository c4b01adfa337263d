"""Training: dropout, the order of images, augmentation, PGD, the bank of an energy, and recipes."""

import pytest
import torch
from short_trainings import Exploding, material
from torch import nn

from defenses.networks.registry import build_network
from defenses.training.adversarial.attacks import pgd
from defenses.training.loop import fit
from defenses.training.objectives.ebm import EnergyTraining
from defenses.training.phases import Phase
from defenses.training.plan import Plan
from defenses.training.recipe import load_recipe, methods
from defenses.training.streams import Order, augmented, stream
from defenses.training.train import train
from defenses.utils.errors import UserError
from defenses.zoo.cards import card

pytestmark = pytest.mark.usefixtures("one_thread")


def test_dropout_is_reproducible_and_leaves_the_global_generator(tmp_path):
    results = []
    for name in "ab":
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 1))
        with torch.no_grad():
            for p in network.parameters():
                p.zero_()
        torch.manual_seed(ord(name))
        before = torch.get_rng_state()
        plan = Plan(5, (Phase(4, "sgd", 1e-1),), 100, 100, 0, "x")
        results.append(fit(Exploding(network, material(), 0), plan, tmp_path / name, progress=False).weights)
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])


def test_order_is_a_permutation_every_epoch():
    order = Order(10, 3, 0)
    epoch = torch.cat([order(i) for i in range(3)])
    assert len(epoch.unique()) == 9
    assert torch.equal(Order(10, 3, 0)(4), order(4))
    assert not torch.equal(order(0), order(3))
    assert Order(2, 5, 0)(7).tolist() in ([0, 1], [1, 0])


def test_augmentation_moves_whole_images():
    x = torch.zeros(200, 1, 8, 8)
    x[:, :, 3, 2] = 1
    out = augmented(x, stream(0, "a"), shift=1, flip=True)
    assert out.sum() == 200
    assert set(out.nonzero()[:, 2].tolist()) == {2, 3, 4}
    assert set(out.nonzero()[:, 3].tolist()) == {1, 2, 3, 4, 5, 6}


def test_pgd_stays_in_ball_and_box_and_finds_the_corner():
    weight = torch.linspace(-1, 1, 64)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.stack((weight, -weight)))
    x = torch.full((3, 1, 8, 8), 0.95)
    at = pgd(network, x, torch.zeros(3, dtype=torch.int64), stream(0, "x"), eps=0.1, step=0.05, iterations=10)
    corner = (x - 0.1 * weight.sign().view(8, 8)).clamp(0, 1)
    torch.testing.assert_close(at, corner)


def test_energy_training_keeps_its_bank():
    objective = EnergyTraining(
        build_network("energy-mlp"), material(), 0, {"eps": 0.03, "eps_data": 0.06, "langevin_steps": 2}
    )
    before = objective.bank.clone()
    assert before.shape == (20, 1, 8, 8)
    assert -1 <= float(before.min()) < float(before.max()) <= 1
    objective.loss(torch.arange(5), 0)
    assert int((objective.bank != before).flatten(1).any(1).sum()) == 5
    assert objective.monitor()["r"] > 0


# --- recipes


@pytest.mark.parametrize("name", methods())
def test_recipes_are_complete(name):
    assert set(card(name).recipes) - {"cifar10-small"} == {"digits", "mnist", "cifar10"}
    for dataset in card(name).recipes:
        recipe = load_recipe(name, dataset)
        assert recipe.phases[-1].until > 0


@pytest.mark.parametrize(
    ("name", "dataset", "overrides", "message"),
    [
        ("adb", "digits", {}, 'unknown recipe "adb"; did you mean adp'),
        ("adp", "svhn", {}, "no recipe.*digits, mnist; start from one"),
        ("adp", "digits", {"bach": 3}, "batch"),
        ("adp", "digits", {"objective.sigma_mx": 3}, "sigma_max"),
        ("adp", "digits", {"phases": []}, "phases"),
        ("adp", "digits", {"phases": [{"until": 3, "optimizer": "adam", "lrr": 1}]}, "did you mean lr"),
        ("adp", "digits", {"phases": [{"until": 3, "optimizer": "adamm", "lr": 1}]}, "did you mean adam"),
        ("adp", "digits", {"network.kind": "score-mpl"}, "score-mlp"),
        ("adp", "digits", {"unit": "weeks"}, "epochs"),
    ],
)
def test_bad_recipes_are_one_clear_line(name, dataset, overrides, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        train(name, dataset, out=tmp_path, overrides=overrides, device="cpu", progress=False)
    assert len(caught.value.args) == (2 if "lrr" in str(overrides) else 1)  # the key that is missing is another fault
