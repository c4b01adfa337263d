"""The shipped weights: their recipes, and how good they are."""

import json

import pytest

from defenses import load_model
from defenses.core.noise import Noise
from defenses.core.purify import purify
from defenses.training.adversarial.attacks import pgd
from defenses.training.objective import accuracy
from defenses.training.recipe import load_recipe, methods
from defenses.training.streams import stream
from defenses.zoo.checkpoints import load_network, read_sidecar
from defenses.zoo.weight_paths import find_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def validation():
    from defenses.data.dataset import load_dataset

    return load_dataset("digits", "validation")


@pytest.mark.parametrize("name", methods())
def test_shipped_weights_are_of_the_shipped_recipe(name):
    side = read_sidecar(find_weights(name, "digits"))
    recipe = load_recipe(name, "digits")
    assert side["recipe"]["objective"] == recipe.objective
    assert side["recipe"]["deploy"] == recipe.deploy
    assert side["recipe"]["phases"] == [p.described() for p in recipe.phases]
    assert find_weights(name, "digits").stat().st_size < 1_000_000


@pytest.mark.parametrize(("name", "clean"), [("undefended", 0.95), ("pgd-at", 0.95)])
def test_shipped_classifiers(name, clean, validation):
    network = load_network(name, "digits")
    assert accuracy(network, validation.x, validation.y) >= clean
    at = pgd(network, validation.x, validation.y, stream(1, "t"), eps=0.2, step=0.05, iterations=20)
    robust = accuracy(network, at, validation.y)
    assert robust >= 0.55 if name == "pgd-at" else robust <= 0.1


@pytest.mark.parametrize(("name", "clean", "transfer"), [("adp", 0.92, 0.25), ("ebm-mcmc", 0.93, 0.08)])
def test_shipped_purifiers(name, clean, transfer, validation):
    defense = load_model(name, **load_recipe(name, "digits").deploy)
    x, y = validation.x, validation.y
    network = load_network("undefended", "digits")
    at = pgd(network, x, y, stream(1, "t"), eps=0.2, step=0.05, iterations=20)
    for images, least in ((x, clean), (at, transfer)):
        hits = defense.logits(images, Noise.of(0, len(images))).argmax(1) == y
        assert float(hits.float().mean()) >= least


def test_stability_lies_beside_the_energy():
    path = find_weights("ebm-mcmc", "digits")
    found = json.loads(path.with_suffix(".stability.json").read_text())
    assert found["weights_sha256"] == read_sidecar(path)["sha256"]
    assert found["steps"] >= 10 * load_recipe("ebm-mcmc", "digits").deploy["steps"]
    data, noise = (found[n][-1] for n in ("from_data", "from_noise"))
    assert abs(data["U"] - noise["U"]) < 0.01 * abs(data["U"])
    assert min(data["classes"]) > 0.02


@pytest.mark.parametrize("name", ["adp", "diffpure", "ebm-mcmc"])
def test_fitted_surrogates_are_near_what_they_stand_for(name, validation):
    """Nearer to the mean of purified images than the image is."""
    side = read_sidecar(find_weights(f"{name}-fitted", "digits"))
    assert side["recipe"]["objective"] == load_recipe("magnet", "digits").objective | {"purifier": name}
    x, purifier = validation.x[:50], load_model(name).purifier
    mean = purify(purifier, x.repeat(32, 1, 1, 1), Noise.of(0, 1600)).view(32, *x.shape).mean(0)
    fitted, image = ((y - mean).square().mean() for y in (load_network(f"{name}-fitted", "digits")(x), x))
    assert fitted < image / 2
