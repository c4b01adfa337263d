"""`purebench import --check`: right networks pass, fresh and wrongly scaled ones fail, mistakes are one line."""

from dataclasses import replace

import pytest
import torch
from boards import ROOT
from diffusion_releases import OPTIONS, checkpoint, ncsnv2_states, run, saved

from bench.audit.imported_weights import check_weights, claimed_accuracies, predicted_noise
from bench.evaluation.linear_denoiser import LinearDenoiser
from defenses.data import load_dataset
from defenses.importers.checkpoint import Checkpoint
from defenses.networks.registry import build_network
from defenses.zoo.checkpoints import load_network, read_sidecar
from defenses.zoo.weight_paths import find_weights


def shipped(name, clean=None):
    side = read_sidecar(find_weights(name, "digits"))
    network = side["network"]
    return Checkpoint(name, network["kind"], network["args"], {}, side["recipe"], clean), load_network(name, "digits")


def statuses(checkpoint, network, **options):
    return [f.status for f in check_weights(checkpoint, network, "digits", images=200, **options)]


@pytest.mark.parametrize(("name", "count"), [("score-sde", 3), ("ebm-mcmc", 3), ("undefended", 1)])
def test_trained_networks_pass_and_fresh_ones_fail(name, count):
    told, network = shipped(name)
    assert statuses(told, network) == ["pass"] * count
    fresh = build_network(told.kind, seed=5, **told.args)
    assert "fail" in statuses(told, fresh)


class Scaled(torch.nn.Module):
    """A network that is given images in a wrong range, as of an importer with another normalisation."""

    def __init__(self, network):
        super().__init__()
        self.network, self.sde = network, network.sde

    def forward(self, x, t):
        return self.network((x + 1) / 2, t)


def test_a_score_network_of_another_range_fails():
    told, network = shipped("score-sde")
    assert statuses(told, Scaled(network)) == ["fail"] * 3


def test_an_energy_of_the_other_sign_fails():
    told, network = shipped("ebm-mcmc")
    with torch.no_grad():
        for p in network[-2].parameters():
            p.neg_()
    assert statuses(told, network)[:2] == ["fail", "fail"]


@pytest.mark.parametrize(("clean", "status"), [(0.97, "pass"), (0.7, "fail")])
def test_an_accuracy_is_held_against_the_published_one(clean, status):
    assert statuses(*shipped("undefended", clean=clean)) == [status]
    assert statuses(*shipped("undefended", clean=0.1), claimed={clean: 10_000}) == [status], "a claim comes first"


def test_the_linear_denoiser_is_the_posterior_mean_of_normal_data():
    """z given y of independent pixels: sigma / (variance + sigma^2) times the deviation from the mean."""
    images = torch.zeros(4, 1, 1, 2)
    images[:, 0, 0] = torch.tensor([[0.0, 0.2], [0.0, 0.6], [1.0, 0.2], [1.0, 0.6]])

    class Few:
        shape = (1, 1, 2)

        def __len__(self):
            return 4

        def images(self, at):
            return images[list(at)]

    y = torch.tensor([[[[0.9, 0.1]]]])
    expected = torch.tensor([0.3 / (0.25 + 0.09) * 0.4, 0.3 / (0.04 + 0.09) * -0.3]).view(1, 1, 1, 2)
    torch.testing.assert_close(LinearDenoiser.of(Few()).predicted_noise(y, 0.3), expected)


def test_large_images_have_no_linear_denoiser(monkeypatch):
    """Its covariance would take tens of GB; the images are not even read."""

    class Large:
        shape = (1, 17, 241)

        def __len__(self):
            return 4

    assert LinearDenoiser.of(Large()) is None
    monkeypatch.setattr("bench.evaluation.linear_denoiser.MOST_DIMENSIONS", 63)
    for found in check_weights(*shipped("score-sde"), "digits", images=100):
        assert found.status == "pass"
        assert "best linear denoiser" not in found.numbers
        assert found.evidence.endswith("(above 4096 dimensions the best linear denoiser is left out)")


def test_networks_of_scores_and_of_noise_see_the_same_noise():
    """A network that returns its input: f = y, so predicts -y; a predictor returns its scaled input."""

    class Same(torch.nn.Module):
        def forward(self, x, t=None):
            return x

    x, z = torch.rand(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    torch.testing.assert_close(predicted_noise(Same(), x, 0.25, z), -(x + 0.25 * z))
    same = Same()
    same.sde = build_network("ncsnpp", in_channels=1, size=8, **OPTIONS).sde
    scaled = predicted_noise(same, x, 0.25, z)
    level = same.sde.mean(torch.tensor(same.sde.time_of(0.25)))
    torch.testing.assert_close(scaled, level * (2 * (x + 0.25 * z) - 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("clean", "status"), [(0.97, "pass"), (0.8, "fail")])
def test_one_of_several_published_accuracies_must_fit(clean, status):
    """An id of RobustBench names models of several norms."""
    (found,) = check_weights(*shipped("undefended"), "digits", images=200, claimed={0.7: 10_000, clean: 10_000})
    assert found.status == status
    assert found.evidence.endswith(f"published 70.00% or {clean:.2%}")
    assert found.numbers["published"] == clean


def test_a_claim_of_few_images_has_a_wide_interval():
    assert statuses(*shipped("undefended"), claimed={0.8: 10_000}) == ["fail"]
    assert statuses(*shipped("undefended"), claimed={0.8: 10}) == ["pass"]


def test_a_claim_is_found_by_robustbench_id(tmp_path):
    for name, figures in [
        ("Engstrom2019Robustness", [0.8703, 0.9083]),
        ("Rice2020Overfitting", [0.8534, 0.8867]),
        ("Wu2020Adversarial", [0.8536, 0.8851]),
    ]:
        (file := tmp_path / f"{name}.pt").write_bytes(b"")
        assert claimed_accuracies(file, "cifar10") == dict.fromkeys(figures, 10_000), "of L2 and Linf"
        assert claimed_accuracies(file, "digits") == {}
    assert claimed_accuracies(tmp_path / "none.pt", "cifar10") == {}


def test_the_claims_number_of_images_is_used(tmp_path, monkeypatch):
    from bench.analysis.claim_files import read_claims
    from bench.audit import imported_weights

    claim = read_claims()[0]
    shared = {"dataset": "cifar10", "weights": ("robustbench:cifar10/Linf/A",)}
    told = [replace(claim, **shared, clean=c, n=n) for c, n in [(0.5, 512), (0.5, None), (0.6, 512), (None, 9)]]
    monkeypatch.setattr(imported_weights, "read_claims", lambda: told)
    assert claimed_accuracies(tmp_path / "A.pt", "cifar10") == {0.5: 10_000, 0.6: 512}


def test_the_command(tmp_path, capsys):
    fresh, content = ncsnv2_states(), checkpoint()[0]
    digits = ["--dataset", "digits", "--check", "--images", "20"]
    assert run("ncsnv2", saved(tmp_path / "n.pth", fresh), *digits) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"fail  loss at sigma {s}" for s in ("0.1", "0.17", "0.25")]
    options = ["--set", *(f"{k}={v}" for k, v in OPTIONS.items())]
    file = saved(tmp_path / "s.pth", content)
    assert run("score-sde", file, *digits, *options) == 1
    capsys.readouterr()
    for more, message in [
        (["--check", "--images", "1", *options], "--images is 1; it must be at least 2"),
        (["--check", "--out", tmp_path, *options], "--check writes nothing"),
        (["--images", "5", *options], "--images and --data-root are of --check"),
        (["--check"], "all_modules.0.bias"),
        (["--check", "--dataset", "cifar10", "--data-root", tmp_path, *options], "s.pth"),
    ]:
        assert run("score-sde", file, "--dataset", "digits", *more) == 2, more
        out, error = capsys.readouterr()
        assert out == ""
        assert message in error, error
        assert error.count("\n") == 1


def test_the_public_resnet_has_its_published_accuracy(capsys):
    file = ROOT / "defenses" / "weights" / "cifar10" / "undefended.safetensors"
    try:
        load_dataset("cifar10")
    except Exception as error:
        pytest.skip(str(error))
    assert run("cifar-resnet", file, "--check", "--images", "200") == 0
    assert "published 91.73%" in capsys.readouterr().out
