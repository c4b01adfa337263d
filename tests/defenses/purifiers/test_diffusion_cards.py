"""The diffusion purifiers as their cards deploy them, with the shipped digits weights."""

import pytest
import torch

from bench.evaluation.certificates.measure import certify
from defenses import card, load_model
from defenses.core.noise import Noise
from defenses.data.dataset import load_dataset
from defenses.purifiers.diffusion.likelihood import bits_per_dim, dequantised, log_likelihood
from defenses.purifiers.diffusion.samplers import FlowODE, PredictorCorrector
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network

CARDS = [
    ("score-sde", {}),
    ("score-sde", {"sampler": "ode"}),
    ("diffpure", {}),
    ("gdmp", {}),
    ("gdmp", {"guidance": 0}),
    ("gdmp", {"rounds": 2}),
    ("denoise-once", {}),
]


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits", "validation")


@pytest.mark.parametrize(("name", "params"), CARDS)
def test_the_certificate_passes(name, params, data):
    certificate = certify(load_model(name, **params), data.x[:4])
    assert certificate.passed, [c for c in certificate.checks if not c.passed]


@pytest.mark.parametrize(("name", "params"), CARDS)
def test_modes_are_the_cards(name, params):
    assert load_model(name, **params).gradients == card(name).gradients


def test_samplers():
    assert isinstance(load_model("score-sde").purifier, PredictorCorrector)
    assert isinstance(load_model("score-sde", sampler="ode").purifier, FlowODE)
    with pytest.raises(UserError, match='unknown sampler "odee"; did you mean ode'):
        load_model("score-sde", sampler="odee")


@pytest.mark.parametrize(
    ("name", "calls"), [("score-sde", 4 * 19), ("diffpure", 40), ("gdmp", 40), ("denoise-once", 4)]
)
def test_a_prediction_costs_what_the_card_says(name, calls, data):
    defense, rows = load_model(name), []
    (network,) = defense.purifier.cost_modules()
    network.register_forward_hook(lambda m, i, o: rows.append(len(i[0])))
    defense.logits(data.x[:2], Noise.of(0, 2))
    assert sum(rows) == 2 * calls


def test_clean_digits_are_likelier_than_noisy_ones(data):
    """In bits per dimension, with 17 grey levels."""
    network = load_network("score-sde", "digits")
    x, noise = data.x[:20], Noise.of(0, 20)
    noisy = (x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    clean, worse = (
        bits_per_dim(log_likelihood(network, dequantised(v, noise, 17), noise, steps=40), 64, 17) for v in (x, noisy)
    )
    assert (worse > clean).float().mean() > 0.9
    assert float(clean.mean()) < 4.09  # log2(17), the uniform law
