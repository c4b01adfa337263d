"""The GAN adversarial network: its gradient against definition and limit, its generator, its statistics."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from defenses import load_model
from defenses.data.dataset import load_dataset
from defenses.networks.registry import build_network
from defenses.training.adversarial.gan_at import GanAdversarialTraining
from defenses.training.objective import Material, accuracy
from defenses.training.recipe import load_recipe
from defenses.training.streams import stream
from defenses.training.train import train
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import read_sidecar
from defenses.zoo.weight_paths import find_weights

ROWS = torch.arange(8)


def made(network=None, *, still=False, **more) -> GanAdversarialTraining:
    """In double precision, so that differences over small steps can be taken; a still generator never learns."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 1, 8, 8, generator=generator, dtype=torch.float64)
    y = torch.arange(8) % 3
    network = network or build_network("small-cnn", channels=[4, 4], hidden=8, num_classes=3)
    settings = {"eps": 0.2, "generator": {"features": 2, "blocks": 1}, **more}
    objective = GanAdversarialTraining(
        network.double(), Material(x, y, x, y, trained=lambda name: network), 0, settings
    )
    objective.generator.double()
    if still:
        objective.settings = dataclasses.replace(objective.settings, generator_steps=0)
    return objective


def flat(tensors) -> torch.Tensor:
    return torch.cat([t.flatten() for t in tensors])


def second_term(objective, moved=None):
    x, y = objective.data.x, objective.data.y
    weights = moved or dict(objective.generator.named_parameters())
    noise = functional_call(objective.generator, weights, (2 * x - 1,))
    return F.cross_entropy(objective.network(x + objective.settings.eps * noise), y)


@pytest.mark.parametrize("gamma", [0.01, 0.0, -0.01])
def test_the_classifiers_gradient_is_its_definition(gamma):
    h = 1e-3
    objective = made(gamma=gamma, virtual_step=h, still=True, generator_decay=0.1)
    theta, phi = list(objective.network.parameters()), dict(objective.generator.named_parameters())
    found = flat(torch.autograd.grad(objective.loss(ROWS, 0), theta))
    slope = torch.autograd.grad(second_term(objective), list(phi.values()))
    moved = {n: (p + h * (g - 0.1 * p)).detach() for (n, p), g in zip(phi.items(), slope, strict=True)}
    clean = F.cross_entropy(objective.network(objective.data.x), objective.data.y)
    g1, g2, g3 = (
        flat(torch.autograd.grad(v, theta)) for v in (clean, second_term(objective), second_term(objective, moved))
    )
    torch.testing.assert_close(found, g1 + g2 + gamma * (g2 - g3) / h)


def test_a_small_virtual_step_is_the_gradient_of_the_generators_slope():
    """-gamma/2 d/dtheta ||dL/dphi||^2: a positive gamma rewards large gradients of the generator."""
    gamma = 5.0
    with_term, without = (made(gamma=g, virtual_step=1e-7, still=True, generator_decay=0.0) for g in (gamma, 0.0))
    theta = list(with_term.network.parameters())
    found = flat(torch.autograd.grad(with_term.loss(ROWS, 0), theta))
    plain = flat(torch.autograd.grad(without.loss(ROWS, 0), list(without.network.parameters())))
    slope = torch.autograd.grad(second_term(with_term), list(with_term.generator.parameters()), create_graph=True)
    size = flat(torch.autograd.grad(flat(slope).square().sum(), theta))
    torch.testing.assert_close(found - plain, -gamma / 2 * size, atol=1e-4, rtol=1e-2)


def test_the_generator_climbs_and_stays_in_the_ball():
    objective = made(generator_steps=30, gamma=0.0)
    x, y = objective.data.x, objective.data.y
    with torch.no_grad():
        before = float(second_term(objective))
    at = objective.attack(x, y, stream(0, "t"))
    assert float(F.cross_entropy(objective.network(at), y).detach()) > before + 0.005
    assert float((at - x).abs().max()) <= 0.2
    assert not at.requires_grad


@pytest.mark.parametrize("gamma", [0.01, 0.0])
def test_passes_of_a_step(gamma):
    objective, calls = made(gamma=gamma, generator_steps=5), []
    objective.network.register_forward_hook(lambda *_: calls.append(1))
    objective.loss(ROWS, 0)
    assert len(calls) == 5 + 2 + (2 if gamma else 0)


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_statistics_of_the_attack(statistics):
    network = build_network("resnet20", blocks=1, in_channels=1, num_classes=3)
    objective, modes = made(network, statistics=statistics, gamma=0.0), []
    before = network.bn1.running_mean.clone()
    hook = network.register_forward_hook(lambda m, *_: modes.append(m.training))
    objective.attack(objective.data.x, objective.data.y, stream(0, "t"))
    assert modes == [statistics == "batch"] * 5
    assert torch.equal(before, network.bn1.running_mean)
    hook.remove()
    network.eval()
    found = objective.validate()
    assert ("robust_batch" in found) == (statistics == "batch")
    assert not network.training


@pytest.mark.parametrize("every", [1, 5])
def test_the_classifier_moves_on_every_nth_batch(every, monkeypatch):
    """12 batches in the loop: weights, statistics of batch norm and the average move in those alone."""
    from defenses.training.loop import training_step
    from defenses.training.phases import Phase, PhasedOptimizer
    from defenses.training.streams import Order

    network = build_network("resnet20", blocks=1, in_channels=1, num_classes=3)
    objective = made(network, classifier_every=every, generator_steps=3, ema=0.9)
    phase = Phase(until=12, optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.1)
    schedule, order, updates = PhasedOptimizer(objective, (phase,)), Order(8, 4, 0), []
    step = objective.optimizer.step
    monkeypatch.setattr(objective.optimizer, "step", lambda: (updates.append(1), step()))
    moved = []
    for k in range(12):
        before = [v.clone() for v in network.state_dict().values()]
        generator = flat(objective.generator.parameters()).detach().clone()
        training_step(objective, schedule, order, k, False)
        same = [torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True)]
        assert not any(same) or all(same)
        moved += [] if all(same) else [k]
        assert not torch.equal(generator, flat(objective.generator.parameters()))
    assert moved == [k for k in range(12) if k % every == every - 1]
    assert len(updates) == 12 * 3
    assert int(objective.average.n_averaged) == 12 // every


def test_bad_settings_are_one_line():
    with pytest.raises(UserError, match="classifier_every is 0; it must be a whole number, at least 1"):
        made(classifier_every=0)
    with pytest.raises(UserError, match='statistics is "bach"'):
        made(statistics="bach")
    with pytest.raises(UserError, match="did you mean adam"):
        made(generator_optimizer="adm")
    with pytest.raises(UserError, match=r'"noise-generator".*featurs'):
        made(generator={"featurs": 3})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gan-at", {}),
        ("gan-at-gamma-zero", {"gamma": 0}),
        ("gan-at-gamma-negative", {"gamma": -0.01}),
        ("gan-at-batch", {"statistics": "batch"}),
    ],
)
def test_shipped_variants_are_of_their_recipes(name, change):
    side = read_sidecar(find_weights(name, "digits"))
    assert side["recipe"]["method"] == "gan-at"
    recipe = load_recipe("gan-at", "digits", {f"objective.{key}": value for key, value in change.items()})
    assert side["recipe"]["objective"] == recipe.objective
    assert side["recipe"]["phases"] == [p.described() for p in recipe.phases]
    model = load_model("gan-at", "digits", classifier=name)
    held = load_dataset("digits", "validation")
    assert accuracy(model, held.x, held.y) == pytest.approx(side["metrics"]["validation"]["clean"], abs=0.004)


def test_a_short_training_learns(tmp_path):
    given = {
        "unit": "steps",
        "validate_every": 120,
        "phases": [{"until": 120, "optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "schedule": "cosine"}],
        "objective.generator_steps": 2,
    }
    path = train("gan-at", "digits", out=tmp_path, overrides=given, device="cpu", progress=False)
    found = json.loads(path.with_suffix(".json").read_text())["metrics"]["validation"]
    assert found["clean"] >= 0.85
    assert found["robust"] >= 0.15


def test_the_shipped_recipe_is_the_published_sign():
    assert read_sidecar(find_weights("gan-at", "digits"))["recipe"]["objective"]["gamma"] == 0.01
