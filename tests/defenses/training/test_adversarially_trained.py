"""Networks from adversarial training: what short trainings reach, which networks they take, the shipped ones."""

import json

import pytest

from defenses.data.dataset import load_dataset
from defenses.training.adversarial.attacks import pgd
from defenses.training.objective import accuracy
from defenses.training.recipe import load_recipe
from defenses.training.streams import stream
from defenses.training.train import train
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network, read_sidecar
from defenses.zoo.weight_paths import find_weights

# --- real trainings

SHORT = {
    "unit": "steps",
    "validate_every": 100,
    "phases": [{"until": 100, "optimizer": "adam", "lr": 3e-3, "schedule": "cyclic"}],
    "objective.validation_iterations": 10,
}
# (clean, robust) accuracy on validation images that 100 steps must reach; natural training reaches robust .0x.
LEAST = {
    "fgsm-at": (0.85, 0.0),
    "fast-at": (0.85, 0.3),
    "free-at": (0.8, 0.15),
    "pgd-at": (0.85, 0.3),
    "trades": (0.85, 0.3),
    "mart": (0.8, 0.3),
    "awp": (0.8, 0.3),
    "ensemble-at": (0.85, 0.2),
    "grad-align": (0.8, 0.2),
}


@pytest.mark.parametrize("name", LEAST)
def test_a_short_training_learns(name, tmp_path):
    given = SHORT | ({"objective.iterations": 4} if name in ("pgd-at", "trades", "mart", "awp") else {})
    path = train(name, "digits", out=tmp_path, overrides=given, device="cpu", progress=False)
    found = json.loads(path.with_suffix(".json").read_text())["metrics"]["validation"]
    assert found["clean"] >= LEAST[name][0]
    assert found["robust"] >= LEAST[name][1]


@pytest.mark.parametrize(
    "network",
    [
        {"network.kind": "timm", "network.args.name": "test_resnet"},
        {
            "network.kind": "robustbench",
            "network.args.name": "dm_wide_resnet.DMWideResNet",
            "network.args.depth": 10,
            "network.args.width": 1,
            "network.args.padding": 12,
        },
    ],
)
def test_networks_of_other_libraries_are_trained_and_loaded(network, tmp_path):
    given = {**SHORT, **network, "phases": [{"until": 2, "optimizer": "sgd", "lr": 0.1}], "objective.iterations": 1}
    path = train("pgd-at", "digits", out=tmp_path / "digits", overrides=given, device="cpu", progress=False)
    side = read_sidecar(path)
    assert side["network"]["kind"] == network["network.kind"]
    assert side["network"]["args"]["in_channels"] == 1
    loaded = load_network("pgd-at", "digits", root=tmp_path)
    assert loaded(load_dataset("digits", "validation").x[:3]).shape == (3, 10)


def test_networks_that_do_not_fit_are_refused_before_training(tmp_path):
    given = {"network.kind": "robustbench", "network.args.name": "resnet.PreActResNet18"}
    with pytest.raises(UserError, match="does not take images of 1x8x8") as caught:
        train("fast-at", "digits", out=tmp_path, overrides=given, device="cpu", progress=False)
    assert "\n" not in str(caught.value)


# --- what is shipped


def robust(name: str, eps: float) -> float:
    held, network = load_dataset("digits", "validation"), load_network(name, "digits")
    at = pgd(network, held.x, held.y, stream(1, "t"), eps=eps, step=eps / 4, iterations=50)
    return accuracy(network, at, held.y)


@pytest.mark.parametrize(
    ("name", "least"),
    [("fast-at", 0.5), ("trades", 0.5), ("mart", 0.5), ("awp", 0.5), ("grad-align", 0.5), ("gan-at", 0.4)],
)
def test_shipped_weights_are_robust(name, least):
    assert robust(name, 0.2) >= least


def test_fgsm_training_collapses_and_pgd_training_does_not():
    """Its own attack at its own eps leaves most, PGD with 50 steps nearly nothing; at 1/5 PGD-AT holds far more."""
    assert robust("fgsm-at", 0.3) <= 0.1
    last = read_sidecar(find_weights("fgsm-at", "digits"))["metrics"]["validation"]
    assert last["fgsm"] >= last["robust"] + 0.5
    assert robust("fgsm-at", 0.2) <= robust("pgd-at", 0.2) - 0.15


def test_pgd_training_at_the_same_eps_holds():
    """The control of the collapse: at 3/10, where FGSM's training holds nothing, and another recipe in nothing else."""
    recipe = load_recipe("pgd-at", "digits", {"objective.eps": "3/10", "objective.step": "3/40"})
    assert read_sidecar(find_weights("pgd-at-eps-3-10", "digits"))["recipe"]["objective"] == recipe.objective
    assert robust("pgd-at-eps-3-10", 0.3) >= max(0.25, robust("pgd-at", 0.3) + 0.02)
