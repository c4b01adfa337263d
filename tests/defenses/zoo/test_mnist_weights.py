"""Weights for MNIST that come with the package: they are what the cards' recipes say, and the defenses work."""

import json
from pathlib import Path

import pytest
import torch

import defenses
from bench.evaluation.verdict import verdict
from defenses import card, list_models, load_model
from defenses.data.dataset import load_dataset
from defenses.training.recipe import load_recipe, methods
from defenses.utils.paths import data_root

FOLDER = Path(defenses.__file__).parent / "weights" / "mnist"
SHIPPED = {p.stem for p in FOLDER.glob("*.safetensors")}
ROOT = data_root()
needs_mnist = pytest.mark.skipif(not (ROOT / "MNIST" / "raw").is_dir(), reason=f"no MNIST in {ROOT}")
# Fewer runs and steps than deployed where those take long.
SMALL = {
    "adp": {"runs": 1},
    "ebm-mcmc": {"runs": 1},
    "igebm": {"runs": 1},
    "jem-refine": {"runs": 1},
    "score-sde": {"runs": 1, "steps": 5},
    "diffpure": {"runs": 1, "steps": 5},
    "gdmp": {"runs": 1, "steps": 5},
    "denoise-once": {"runs": 1},
}
LEAST = {"few-labels": 0.7, "vat": 0.85}  # accuracy on validation images, of those that learn from 100 labels


def _needed(name):
    """The weights that a defense loads on MNIST, those of its classifier included."""
    known = card(name)
    merged = known.merged("mnist", {})
    return {*known.networks(merged), merged.get("classifier", name)} if known.weights else set()


NAMES = [n for n in list_models() if card(n).kind != "detector" and _needed(n) and _needed(n) <= SHIPPED]


def test_recipes_say_which_were_not_run():
    for name in methods():
        assert ("not run" in card(name).recipes["mnist"]["about"]) == (name not in SHIPPED), name


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_weights_were_made_by_the_recipe(name):
    made, recipe = json.loads((FOLDER / f"{name}.json").read_text())["recipe"], load_recipe(name, "mnist")
    assert made["seed"] == 0
    assert made["steps"] == recipe.in_steps(55000 // recipe.batch)[0][-1].until
    assert made["phases"] == [p.described() for p in recipe.phases]
    for key in ("dataset", "kind", "network_args", "batch", "unit", "objective"):
        assert made[key] == json.loads(json.dumps(getattr(recipe, key))), key


@needs_mnist
@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_classify(name):
    """Far above chance on 100 validation images."""
    data = load_dataset("mnist", "validation").select(range(100))
    defense = load_model(name, "mnist", **SMALL.get(name, {}))
    draws = verdict(defense, data.x, torch.arange(100), draws=1, selection=1, seed=0)
    assert (draws.predictions[-1] == data.y).float().mean() > LEAST.get(name, 0.9)
