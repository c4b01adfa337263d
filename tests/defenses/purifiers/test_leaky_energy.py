"""The shipped LeakyReLU energy and its SiLU twin: what gradients say, and how a board names them."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from bench.board.defense_entry import describe
from defenses import load_model
from defenses.core.noise import Noise
from defenses.data.dataset import load_dataset
from defenses.zoo.checkpoints import read_sidecar
from defenses.zoo.registry import fingerprint
from defenses.zoo.weight_paths import find_weights

LEAKY = {"energy": "ebm-mcmc-leaky"}


@pytest.fixture(scope="module")
def slopes():
    """Return gradients of the loss on 100 test images under equal noise, [100, 64], by weights and mode."""
    data = load_dataset("digits", "test")
    found = {}
    for energy in ("ebm-mcmc-leaky", "ebm-mcmc"):
        model = load_model("ebm-mcmc", "digits", energy=energy, runs=1)
        for mode in ("bpda", "exact", "difference") + (("smooth",) if energy in LEAKY.values() else ()):
            x = data.x[:100].clone().requires_grad_()
            loss = cross_entropy(model.logits(x, Noise.of(0, 100), gradient=mode), data.y[:100], reduction="sum")
            found[energy, mode] = torch.autograd.grad(loss, x)[0].flatten(1)
    return found


def test_exact_is_bpda_of_every_image_where_the_energy_is_piecewise_linear(slopes):
    exact, bpda = (slopes["ebm-mcmc-leaky", mode] for mode in ("exact", "bpda"))
    assert bpda.norm(dim=1).gt(0).all()
    assert ((exact - bpda).norm(dim=1) <= 1e-5 * bpda.norm(dim=1)).all()


def test_elsewhere_gradients_differ(slopes):
    smooth = cosine_similarity(slopes["ebm-mcmc", "exact"], slopes["ebm-mcmc", "bpda"])
    assert smooth.max() < 0.99
    for mode in ("smooth", "difference"):
        assert cosine_similarity(slopes["ebm-mcmc-leaky", mode], slopes["ebm-mcmc-leaky", "bpda"]).median() < 0.9


def test_the_twins_differ_in_their_activation_alone():
    leaky, twin = (read_sidecar(find_weights(name, "digits")) for name in ("ebm-mcmc-leaky", "ebm-mcmc"))
    assert (leaky["network"]["kind"], twin["network"]["kind"]) == ("energy-mlp-leaky", "energy-mlp")
    shapes = [
        [p.shape for p in load_model("ebm-mcmc", "digits", energy=name).purifier.parameters()]
        for name in ("ebm-mcmc-leaky", "ebm-mcmc")
    ]
    assert shapes[0] == shapes[1]
    for key in ("batch", "objective", "phases", "steps", "seed"):
        assert leaky["recipe"][key] == twin["recipe"][key]


def test_older_results_keep_the_fingerprint_of_the_default_energy():
    usual = fingerprint("ebm-mcmc", "digits", {})
    assert "energy" not in usual["parameters"]
    assert fingerprint("ebm-mcmc", "digits", {"energy": "ebm-mcmc"}) == usual
    assert fingerprint("ebm-mcmc", "digits", LEAKY)["parameters"]["energy"] == "ebm-mcmc-leaky"


@pytest.mark.parametrize("params", [{}, LEAKY])
def test_boards_know_the_modes_of_the_network_that_is_named(params):
    told = describe({"name": "ebm-mcmc", "params": params}, "digits")
    assert set(told.gradients) == set(load_model("ebm-mcmc", "digits", **params).gradients)
