"""Trainers of the generative purifiers: losses in closed form, and short real trainings that must reach something."""

import dataclasses

import pytest
import torch
from torch import nn

from bench.evaluation.certificates.measure import certify
from defenses import load_model
from defenses.core.defense import Classifier, Purified
from defenses.core.noise import Noise
from defenses.data.dataset import load_dataset
from defenses.networks.registry import build_network
from defenses.purifiers.autoencoder import Reformer
from defenses.purifiers.igebm import ClippedLangevin
from defenses.training.objective import Material, accuracy
from defenses.training.objectives.chain_bank import Bank
from defenses.training.objectives.denoising import DenoisingTraining
from defenses.training.objectives.gan import GanTraining
from defenses.training.objectives.igebm import IgebmTraining
from defenses.training.objectives.jem import JemTraining
from defenses.training.streams import stream
from defenses.training.train import train
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network, read_sidecar


def material(n=20) -> Material:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(n) % 10
    return Material(x, y, x, y, trained=lambda name: nn.Identity())


def test_gradient_penalty_of_a_linear_critic():
    objective = GanTraining(
        build_network("dcgan-generator", in_channels=1, size=8, latent=3, width=4),
        material(),
        0,
        {"loss": "wgan-gp", "width": 4, "penalty": 10.0},
    )
    critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Flatten(0))
    objective.critic = critic
    w = critic[1].weight[0]
    real, made = objective.data.x[:5], objective.data.x[5:10]
    found = objective._critic_loss(real, made, stream(0, "x"))
    expected = (made - real).flatten(1).mean(0) @ w + 10 * (w.norm() - 1) ** 2
    torch.testing.assert_close(found, expected)


def test_cross_entropy_of_an_undecided_discriminator():
    objective = GanTraining(
        build_network("dcgan-generator", in_channels=1, size=8, latent=3, width=4), material(), 0, {"width": 4}
    )
    assert any(isinstance(m, nn.BatchNorm2d) for m in objective.critic.modules())
    objective.critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))
    nn.init.zeros_(objective.critic[1].weight)
    nn.init.zeros_(objective.critic[1].bias)
    real = objective.data.x[:5]
    assert objective._critic_loss(real, real, stream(0, "x")).item() == pytest.approx(2 * 0.693147, abs=1e-5)


@pytest.mark.parametrize("table", [{"loss": "gan"}, {"ship": "best"}, {"critic_steps": 0}])
def test_bad_games_are_refused(table):
    network = build_network("dcgan-generator", in_channels=1, size=8, latent=3, width=4)
    with pytest.raises(UserError, match="recipe"):
        GanTraining(network, material(), 0, table)


def test_a_bank_keeps_its_chains_and_renews_a_share():
    bank = Bank((1000, 1, 2, 2), -1.0, 1.0, 0, torch.device("cpu"))
    assert -1 <= float(bank.chains.min()) < -0.9 < 0.9 < float(bank.chains.max()) <= 1
    before = bank.chains.clone()
    at, x = bank.taken(400, 0.25, stream(0, "a"))
    renewed = (x != before[at]).flatten(1).any(1)
    assert float(renewed.float().mean()) == pytest.approx(0.25, abs=0.09)
    assert len(at.unique()) == 400
    bank.put(at, x + 1)
    assert int((bank.chains != before).flatten(1).any(1).sum()) == 400


def test_jem_loss_is_cross_entropy_less_the_difference_of_densities():
    network = build_network("classifier-mlp", hidden=8, depth=1)
    table = {"bank": 20, "rejuvenate": 0.0, "sigma": 0.0, "weight": 0.5}
    objective = JemTraining(network, material(), 0, table)
    objective.settings = dataclasses.replace(objective.settings, steps=0)  # chains stay where they are
    index = torch.arange(6)
    chains = objective.bank.taken(6, 0.0, stream(0, "chains", 3))
    found = objective.loss(index, 3)
    x, y = objective.data.x[index], objective.data.y[index]
    # Without noise and steps, the chains are some rows of the bank; which ones decides the generator of step 3.
    generator = stream(0, "chains", 3)
    torch.randn(x.shape, generator=generator)
    _, chains = objective.bank.taken(6, 0.0, generator)
    d = network(x).logsumexp(1).mean() - network((chains + 1) / 2).logsumexp(1).mean()
    torch.testing.assert_close(found, nn.functional.cross_entropy(network(x), y) - 0.5 * d)


def test_igebm_loss_is_the_difference_and_the_squares():
    network = build_network("igebm-mlp", hidden=8, depth=1)
    objective = IgebmTraining(network, material(), 0, {"bank": 20, "steps": 2, "squares": 0.3})
    assert objective.betas == (0.0, 0.999)
    seen = []
    network.register_forward_hook(lambda m, inputs, f: seen.append(f))
    loss = objective.loss(torch.arange(6), 0)
    good, bad = seen[-1][:6], seen[-1][6:]
    expected = good.mean() - bad.mean() + 0.3 * (good.square().mean() + bad.square().mean())
    torch.testing.assert_close(loss, expected)


@pytest.fixture(scope="module")
def validation():
    return load_dataset("digits", "validation")


def short(name, steps, out, **more):
    phases = [{"until": steps, "optimizer": "adam", "lr": 1e-3}]
    given = {"unit": "steps", "validate_every": steps, "phases": phases, **more}
    return read_sidecar(train(name, "digits", out=out / "digits", overrides=given, device="cpu", progress=False))


def before_undefended(purifier, validation):
    bare = Classifier(load_network("undefended", "digits"), num_classes=10, input_shape=(1, 8, 8))
    defense = Purified(purifier, bare)
    hits = defense.logits(validation.x[:100], Noise.of(0, 100)).argmax(1) == validation.y[:100]
    return float(hits.float().mean())


class Halves(nn.Module):
    """Half of the image."""

    def forward(self, x):
        return x / 2


def test_a_surrogate_is_fitted_to_purified_images():
    """Targets are the purified noisy images: a network that is the purifier has no error, the identity has one."""
    data = dataclasses.replace(material(), purifier=lambda name: Reformer(Halves()) if name == "halves" else None)
    settings = {"noise": 0.1, "purifier": "halves"}
    same, other = (DenoisingTraining(network, data, 0, settings) for network in (Halves(), nn.Identity()))
    index = torch.arange(20)
    assert same.loss(index, 0).item() == 0
    assert other.loss(index, 0).item() > 0.05
    assert same.validate() == {"noisy": 0, "clean": 0}
    assert other.validate()["clean"] == pytest.approx(float((data.x / 2).square().mean()), rel=1e-4)


def test_a_random_purifier_gives_fresh_noise_each_time_and_the_same_in_each_run():
    data = dataclasses.replace(material(), purifier=lambda name: load_model("adp", "digits", steps=1).purifier)
    objective = DenoisingTraining(nn.Identity(), data, 0, {"purifier": "adp"})
    x, again = data.x, stream(0, "x")
    first, second = objective._target(x, x, again), objective._target(x, x, again)
    assert not torch.equal(first, second)
    torch.testing.assert_close(objective._target(x, x, stream(0, "x")), first, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "words"), [("pgd-at", "purifies nothing"), ("adq", 'recipe: objective.purifier: unknown defense "adq"')]
)
def test_a_surrogate_of_no_purifier_is_refused_before_training(name, words, tmp_path):
    with pytest.raises(UserError, match=words):
        train("magnet", "digits", out=tmp_path / "new/digits", overrides={"objective.purifier": name}, progress=False)
    assert not (tmp_path / "new").exists()


def test_a_surrogate_needs_defenses():
    with pytest.raises(UserError, match="needs the defenses of a published data set"):
        DenoisingTraining(nn.Identity(), material(), 0, {"purifier": "adp"})


def test_short_training_of_magnet(tmp_path, validation):
    short("magnet", 400, tmp_path, phases=[{"until": 400, "optimizer": "adam", "lr": 1e-2}])
    assert before_undefended(Reformer(load_network("magnet", "digits", root=tmp_path)), validation) > 0.8


def test_short_training_of_defense_vae(tmp_path, validation):
    found = short("defense-vae", 300, tmp_path)["metrics"]["validation"]
    assert found["clean"] > 0.8
    assert before_undefended(Reformer(load_network("defense-vae", "digits", root=tmp_path)), validation) > 0.8


@pytest.mark.parametrize("loss", ["dcgan", "wgan-gp"])
def test_short_training_of_a_generator(loss, tmp_path):
    more = {"objective.loss": loss, "objective.critic_lr": 1e-3, "objective.ship": "raw"}
    if loss == "wgan-gp":
        more |= {"objective.critic_steps": 5, "objective.beta2": 0.9}
    found = short("defense-gan", 250, tmp_path, **more)["metrics"]["validation"]
    assert found["reconstruction"] < 0.06  # grey images leave .143, the mean image .072


def test_short_training_of_jem(tmp_path, validation):
    short("jem", 200, tmp_path, **{"objective.steps": 5})
    network = load_network("jem", "digits", root=tmp_path)
    assert accuracy(network, validation.x, validation.y) > 0.9


def test_short_training_of_igebm(tmp_path, validation):
    """Chains of the energy leave the digits that they start from what they are, for a while."""
    short("igebm", 300, tmp_path, **{"objective.steps": 10})
    network = load_network("igebm", "digits", root=tmp_path)
    assert before_undefended(ClippedLangevin(network, steps=10), validation) > 0.8


# --- what is shipped


@pytest.mark.parametrize("name", ["defense-gan", "defense-vae", "jem-refine", "igebm"])
def test_exact_gradients_of_shipped_defenses_have_a_certificate(name, validation):
    """Also where all of the gradient goes through one network, so that without it there is none."""
    small = {"runs": 1} if name in ("jem-refine", "igebm") else {"restarts": 2} if name == "defense-gan" else {}
    found = certify(load_model(name, "digits", **small), validation.x[:4])
    assert found is not None
    assert found.passed, [c for c in found.checks if not c.passed]


@pytest.mark.parametrize("name", ["defense-gan", "defense-vae", "magnet", "jem", "jem-refine", "igebm"])
def test_shipped_defenses_are_near_the_undefended_accuracy(name, validation):
    defense = load_model(name, "digits")
    hits = defense.logits(validation.x[:100], Noise.of(0, 100)).argmax(1) == validation.y[:100]
    assert float(hits.float().mean()) >= 0.93
