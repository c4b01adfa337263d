"""Contracts of every registered defense."""

import pytest
import torch

from bench.evaluation.model_checks import check_model
from bench.evaluation.verdict import verdict
from bench.evaluation.view import attack_view
from bench.spec.view import ViewSpec
from defenses import card, list_models, load_model
from defenses.core.noise import Noise
from defenses.data.dataset import dataset_info, load_dataset
from defenses.training.recipe import load_recipe, methods
from defenses.utils.errors import UserError
from defenses.utils.parameters import decode

SMALL = {
    "adp": {"runs": 2, "steps": 3},
    "ebm-mcmc": {"runs": 2, "steps": 5},
    "score-sde": {"runs": 2, "steps": 3},
    "diffpure": {"runs": 2, "steps": 3},
    "gdmp": {"runs": 2, "steps": 3},
    "denoise-once": {"runs": 2},
    "defense-gan": {"restarts": 2, "steps": 5},
    "jem-refine": {"runs": 2, "steps": 3},
    "igebm": {"runs": 2, "steps": 3},
}
LEAST = {"few-labels": 0.8}  # accuracy on validation images, for methods with less than others
INFO = dataset_info("digits")


@pytest.fixture(scope="module", params=list_models())
def model(request):
    return request.param, load_model(request.param, "digits", **SMALL.get(request.param, {}))


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits", "validation")


def test_passes_the_model_check(model, data):
    check_model(model[1], data.x[:8], 10, model[0])


def test_logits_are_fresh_float32_and_finite(model, data):
    x = data.x[:5]
    before = x.clone()
    logits = model[1].logits(x, Noise.of(0, 5))
    assert logits.dtype == torch.float32
    assert logits.shape == (5, 10)
    assert torch.isfinite(logits).all()
    assert torch.equal(x, before)


def outputs(defense, x, noise):
    """Return logits, with the scores of a detector in one more column."""
    prediction = defense.decide(x, noise)
    return (
        prediction.logits
        if prediction.scores is None
        else torch.cat([prediction.logits, prediction.scores[:, None]], 1)
    )


def test_noise_decides_everything(model, data):
    x, defense = data.x[:6], model[1]
    state = torch.random.get_rng_state()
    first, again, other = (outputs(defense, x, Noise.of(s, 6)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first, other) != card(model[0]).stochastic
    a = defense.logits(x, Noise.of(0, 6))
    assert torch.equal(a, first[:, :10])
    rows = torch.tensor([4, 1])
    assert torch.allclose(defense.logits(x[rows], Noise.of(0, 6).rows(rows)), a[rows], atol=1e-4)


def test_card_tells_the_truth(model):
    name, defense = model
    model_card = card(name)
    assert defense.stochastic == model_card.stochastic
    assert tuple(defense.gradients) == model_card.gradients
    assert defense.num_classes == INFO.num_classes
    assert defense.input_shape == INFO.shape


def test_every_gradient_mode_differentiates(model, data):
    name, defense = model
    for mode in card(name).gradients:
        x = data.x[:3].clone().requires_grad_()
        with attack_view(defense, ViewSpec(gradient=mode, eot=2), seed=0) as (view, meter):
            view(x).sum().backward()
        assert torch.isfinite(x.grad).all()
        assert x.grad.abs().sum() > 0
        assert meter.forwards > 0
        assert meter.backwards > 0
        assert all(p.grad is None for p in defense.parameters())


def test_evaluation_mode_is_the_only_one(model):
    defense = model[1]
    defense.train()
    assert not any(m.training for m in defense.modules())


def test_draws_are_the_same_in_any_batch(model, data):
    x, defense = data.x[:9], model[1]
    whole = verdict(defense, x, torch.arange(9), draws=3, selection=2, seed=1, batch=100)
    parts = verdict(defense, x, torch.arange(9), draws=3, selection=2, seed=1, batch=4)
    atol = 1e-3 if defense.stochastic else 1e-4  # chains enlarge the rounding of other batches
    assert torch.allclose(whole.logits, parts.logits, atol=atol)
    sure = whole.margins(data.y[:9]).abs() > 1e-5
    assert ((whole.predictions == parts.predictions) | ~sure).all()
    alone = verdict(defense, x[3:4], torch.tensor([3]), draws=3, selection=2, seed=1)
    assert torch.allclose(alone.logits[:, 0], whole.logits[:, 3], atol=atol)
    assert int(whole.held_out.sum()) == (3 if defense.stochastic else 1)


def test_shipped_weights_are_what_their_recipe_says(model, data):
    """Far above chance on validation images; the tables have the exact figures.

    A method without weights stands before a classifier that was not trained on its outputs: a median or a shift by a
    pixel harms tiny images.
    """
    least = LEAST.get(model[0], 0.9 if card(model[0]).weights else 0.7)
    defense = load_model(model[0], "digits")
    draws = verdict(defense, data.x, torch.arange(len(data)), draws=1, selection=1, seed=0)
    assert (draws.predictions[-1] == data.y).float().mean() > least


def test_unknown_parameters_and_data_sets_are_named():
    with pytest.raises(UserError, match='unknown parameter of adp "sigmaa"; did you mean sigma'):
        load_model("adp", sigmaa=0.1)
    with pytest.raises(UserError, match="did you mean ebm-mcmc"):
        load_model("ebm-mcm")
    with pytest.raises(UserError, match="purebench train"):
        load_model("jem", "cifar10", weights_root="/nonexistent")


def test_numbers_have_one_spelling():
    model_card = card("adp")
    assert model_card.merged("digits", {"sigma": "0.15"}) == model_card.merged("digits", {"sigma": "3/20"})
    assert model_card.merged("digits", {"sigma": 0.15}) == model_card.merged("digits", {"sigma": "3/20"})
    assert model_card.merged("cifar10", {})["sigma"] == "1/4"


def test_purifiers_compose_with_any_classifier(data):
    robust = load_model("adp", classifier="pgd-at", runs=2)
    plain = load_model("adp", runs=2)
    noise = Noise.of(0, 4)
    assert not torch.equal(robust.logits(data.x[:4], noise), plain.logits(data.x[:4], noise))
    expected = load_model("pgd-at").logits(data.x[:4], noise)
    assert torch.equal(robust.logits(data.x[:4], noise, gradient="blind"), expected)


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
def test_cards_deploy_what_the_recipes_chose(dataset):

    for name in methods():
        deployed = decode(card(name).merged(dataset, {}))
        for key, value in load_recipe(name, dataset, None).deploy.items():
            assert deployed[key] == pytest.approx(value), (name, key)
