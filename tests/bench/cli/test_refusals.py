"""What cannot be certified, judged, imported or trained: one line, before any work."""

import shutil

import pytest
import torch
from boards import ROOT

from bench.cli.main import main
from defenses import load_model
from defenses.networks.registry import build_network, data_args
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import save_network

WEIGHTS = ROOT / "defenses" / "weights"


def refused(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert err[-1].startswith("purebench: ")
    return err[-1]


@pytest.mark.parametrize("name", ["bit-depth", "total-variation"])
def test_certify_what_has_no_exact_gradients(name, capsys):
    assert f"{name} has no exact gradients to certify; it has: bpda, blind" in refused(capsys, "certify", name)


def test_a_board_of_exact_gradients_runs_without_them(tmp_path, capsys):
    board = tmp_path / "b.toml"
    board.write_text(
        """dataset = "digits"
indices = "first-2"
threat = { norm = "Linf", eps = "1/5" }
verdict = { draws = 3, selection = 1 }
[[defense]]
name = "adp"
params = { filters = ["bit-depth"], runs = 1, steps = 2 }
[[attack]]
name = "foolbox:LinfPGD"
params = { steps = 2 }
views = [{ gradient = "exact" }, { gradient = "bpda" }]
"""
    )
    assert main(["run", str(board), "--out", str(tmp_path / "r"), "--workers", "0"]) == 0
    assert "unsupported" in capsys.readouterr().out


@pytest.mark.parametrize("of", ["undefended", "median"])
def test_a_network_that_is_no_classifier(of):
    with pytest.raises(UserError, match=r"adp(.safetensors is of network .score-mlp.|. is a purifier and cannot)"):
        load_model(of, "digits", classifier="adp")


def test_weights_of_a_name_that_give_no_logits(tmp_path):
    network = build_network("score-mlp", in_channels=1, size=8)
    save_network(tmp_path / "digits" / "own.safetensors", network, "score-mlp", {"in_channels": 1, "size": 8}, {})
    with pytest.raises(UserError, match=r'own\.safetensors is of network "score-mlp", a score network; it must be a c'):
        load_model("median", "digits", classifier="own", weights_root=tmp_path)


@pytest.mark.parametrize("name", ["adp", "magnet"])
def test_weights_of_another_data_set_where_any_size_fits(tmp_path, name):
    for ending in ("safetensors", "json"):
        (tmp_path / "digits").mkdir(exist_ok=True)
        shutil.copy(WEIGHTS / "mnist" / f"{name}.{ending}", tmp_path / "digits")
    with pytest.raises(UserError, match=rf"{name}\.safetensors is of another data set: its recipe is of mnist, "):
        load_model(name, "digits", weights_root=tmp_path)


def test_energies_of_other_images(tmp_path):
    for ending in ("safetensors", "json"):
        (tmp_path / "digits").mkdir(exist_ok=True)
        shutil.copy(WEIGHTS / "digits" / f"igebm.{ending}", tmp_path / "digits" / f"ebm-mcmc.{ending}")
    with pytest.raises(UserError, match=r"ebm-mcmc\.safetensors is of .*\[0, 1\]; it must be .*\[-1, 1\]: ene"):
        load_model("ebm-mcmc", "digits", weights_root=tmp_path)


def test_a_class_is_no_name_of_weights():
    with pytest.raises(UserError, match=r'"own.py:Net" is no name of weights; name it as the defense, or as the class'):
        load_model("pgd-at", "digits", classifier="own.py:Net")


@pytest.mark.parametrize(
    ("defense", "weights", "kind", "wanted"),
    [
        ("adp", "adp", "small-cnn", "a score network"),
        ("score-norm", "adp", "small-cnn", "a score network"),
        ("ebm-mcmc", "ebm-mcmc", "small-cnn", "an energy"),
        ("likelihood", "ebm-mcmc", "score-mlp", "an energy"),
        ("igebm", "igebm", "small-cnn", "an energy"),
        ("jem-refine", "jem", "score-mlp", "a classifier"),
        ("magnet", "magnet", "score-mlp", "an autoencoder or a variational autoencoder"),
        ("magnet-reconstruction", "magnet", "small-cnn", "an autoencoder"),
        ("magnet-jsd", "magnet", "small-cnn", "an autoencoder"),
        ("defense-gan", "defense-gan", "small-cnn", "a generator"),
        ("defense-vae", "defense-vae", "autoencoder", "a variational autoencoder"),
        ("score-sde", "score-sde", "score-mlp", "a noise predictor"),
        ("diffpure", "score-sde", "score-mlp", "a noise predictor"),
        ("gdmp", "score-sde", "score-mlp", "a noise predictor"),
        ("denoise-once", "score-sde", "score-mlp", "a noise predictor"),
        ("sde-likelihood", "score-sde", "score-mlp", "a noise predictor"),
    ],
)
def test_weights_of_another_role(defense, weights, kind, wanted, tmp_path):
    args = data_args(kind, (1, 8, 8), 10)
    save_network(tmp_path / "digits" / f"{weights}.safetensors", build_network(kind, **args), kind, args, {})
    with pytest.raises(UserError, match=rf'{weights}\.safetensors is of network "{kind}", an? .*; it must be {wanted}'):
        load_model(defense, "digits", classifier="undefended", weights_root=tmp_path)


def test_weights_that_are_not_finite(tmp_path):
    network = build_network("small-cnn", channels=[4], hidden=4)
    with torch.no_grad():
        network.head[3].bias[1] = float("nan")
    args = {"channels": [4], "hidden": 4}
    save_network(tmp_path / "digits" / "own.safetensors", network, "small-cnn", args, {})
    with pytest.raises(UserError, match=r'own.safetensors: tensor "head.3.bias" has values that are not finite'):
        load_model("undefended", "digits", classifier="own", weights_root=tmp_path)


def test_a_loss_that_explodes_stops(tmp_path, capsys):
    arguments = ("train", "pgd-at", "--out", tmp_path, "--set", "phases.0.lr=1e6", "objective.iterations=1")
    assert "training diverged at step" in refused(capsys, *arguments)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_mean_of_another_number_of_channels(tmp_path, capsys):
    said = refused(capsys, "train", "undefended", "--out", tmp_path, "--set", "recipe=cifar10", "network.kind=resnet20",
                   "network.args.mean=[0.5,0.5,0.5]")  # fmt: skip
    assert "channels" in said


def test_corruptions_leave_no_file_of_a_slip(tmp_path, capsys):
    out = tmp_path / "c"
    for slip in (("--indices", "frist-3"), ("--split", "nope"), ("--set", "window=99")):
        name = "median" if slip[0] == "--set" else "undefended"
        refused(capsys, "corruptions", name, "--out", out, *slip)
        assert not list(out.glob("*.jsonl"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "undefended"),
        ("smooth", "smoothing", "--n", "9", "--indices", "first-1"),
        ("corruptions", "undefended", "--corruptions", "contrast", "--severities", "1", "--indices", "first-1"),
    ],
)
def test_a_seed_below_0_leaves_nothing(arguments, tmp_path, capsys):
    said = refused(capsys, *arguments, "--seed", "-1", "--out", tmp_path / "out")
    assert "seed" in said
    assert "-1; it must be" in said
    assert "at least 0" in said
    assert not (tmp_path / "out").exists()


def test_a_training_that_is_refused_leaves_no_folder(tmp_path, capsys):
    said = refused(capsys, "train", "undefended", "--dataset", "mnist", "--data-root", tmp_path / "none",
                   "--out", tmp_path / "out")  # fmt: skip
    assert "is missing" in said
    assert not (tmp_path / "out").exists()


def test_a_probe_that_finds_nothing_leaves_no_folder(tmp_path, capsys):
    from boards import BOARD, write_board

    board = write_board(tmp_path, BOARD.replace(":linear", ":unseeded"))
    assert main(["plan", str(board), "--probe", "--defense", "linear", "--out", str(tmp_path / "out")]) == 0
    assert "by probe" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


LATE_NAN = """
import torch

class LateNaN(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.eval()
    def forward(self, x):
        out = x.flatten(1)[:, :10]
        return torch.where(x.flatten(1).mean(1, keepdim=True) > {limit}, torch.nan, 9 * out - 1)
"""


def test_logits_that_are_not_finite_on_corrupted_images(tmp_path, capsys):
    """Brighter images give NaN; the clean ones, which came first, are kept."""
    from bench.store.jsonl import read
    from defenses.data.dataset import load_dataset

    limit = float(load_dataset("digits").x[:5].mean((1, 2, 3)).max()) + 0.01
    (tmp_path / "late.py").write_text(LATE_NAN.format(limit=limit))
    name, out = f"{tmp_path / 'late.py'}:LateNaN", tmp_path / "out"
    few = ("--corruptions", "brightness", "--severities", "5", "--indices", "first-5")
    said = refused(capsys, "corruptions", name, *few, "--out", out)
    assert "late.py:LateNaN returned logits or scores that are not finite on corrupted:digits/brightness/5" in said
    assert "finished corruptions are kept" in said
    (file,) = out.glob("*.jsonl")
    assert list(read(file)[1]) == ["clean/0"]


def test_logits_that_are_not_finite_under_noise(tmp_path, capsys, monkeypatch):
    """From the second image on: the first one's certificate is kept."""
    from bench.store.jsonl import read
    from defenses.core.defense import Purified

    asked, logits = [], Purified.logits

    def late(self, *arguments, **given):
        asked.append(1)
        found = logits(self, *arguments, **given)
        return found if len(asked) <= 2 else found * torch.nan  # an image asks for its choice and for its estimate

    monkeypatch.setattr("bench.tracks.smoothing.run.check_model", lambda *_, **__: asked.clear())
    monkeypatch.setattr(Purified, "logits", late)
    said = refused(capsys, "smooth", "smoothing", "--n", "9", "--indices", "first-3", "--out", tmp_path)
    assert "smoothing on image 1 of digits: the defense returned logits that are not finite under noise" in said
    assert "finished images are kept" in said
    assert list(read(tmp_path / "sigma-1_4.jsonl")[1]) == ["0"]
