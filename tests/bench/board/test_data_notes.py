"""One note on what a model may have seen: the digits of another order, or weights for other data."""

import json

import numpy as np
import pytest
import torch
from boards import purebench_here
from torch import nn

import bench
from bench.store.manifest import read_manifest
from defenses import Classifier, FixedBatch, load_model
from defenses.data import load_dataset

FEW = {"n_examples": 3, "eps": "1/5", "attacks": "foolbox:LinfFastGradientAttack"}
OWN = (
    "import torch\nfrom torch import nn\nfrom defenses import Filter\n\n\n"
    "def net():\n    torch.manual_seed(0)\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()\n\n\n"
    "class Halved(Filter):\n    def filtered(self, x, z):\n        return x / 2\n"
)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def run(tmp_path, *defenses, more=()):
    board = tmp_path / "b.toml"
    entries = "".join(f"[[defense]]\n{d}\n" for d in defenses)
    board.write_text(
        f'dataset = "digits"\nindices = "first-3"\nthreat = {{ norm = "Linf", eps = "1/5" }}\n{entries}'
        '[[attack]]\nname = "foolbox:LinfFastGradientAttack"\n'
    )
    done = purebench_here("run", board, "--out", tmp_path / "out", "--workers", "0", *more)
    assert done.returncode == 0, done.stderr
    return done.stderr, [line for line in done.stderr.splitlines() if line.startswith("note: the test split")]


def test_an_own_model_on_digits_gets_one_note(own, tmp_path):
    two = (f'name = "{own}:net"\nlabel = "mine"', f'name = "{own}:net"\nlabel = "second"\nstochastic = true')
    _, notes = run(tmp_path, two[0])
    assert notes == [
        "note: the test split of digits is a permutation of scikit-learn's images: if mine was trained on images of "
        "load_digits() in any other split, it has seen some of them, and its accuracy is too high; train it on "
        'defenses.data.load_dataset("digits", split="train")'
    ]
    assert read_manifest(tmp_path / "out")["notes"] == [notes[0].removeprefix("note: ")]
    for name in ("tables.txt", "tables.md", "tables.html"):
        assert "permutation of" in " ".join((tmp_path / "out" / name).read_text().split())
    _, again = run(tmp_path, *two)
    assert again == []  # it is told once in a folder
    assert len(read_manifest(tmp_path / "out")["notes"]) == 1


@pytest.mark.parametrize(
    "entry",
    [
        'name = "undefended"',
        'name = "adp"\nparams = { runs = 1, steps = 1 }',
        'name = "{own}:Halved"\nparams = {{ classifier = "undefended" }}',
        'name = "defenses.zoo.obfuscated:Quantised"',
    ],
)
def test_a_shipped_network_gets_none(entry, own, tmp_path):
    entry = entry.format(own=own) if "{own}" in entry else entry
    told, notes = run(tmp_path, entry)
    assert not notes, told
    assert "notes" not in json.loads((tmp_path / "out/manifest.json").read_text())


def test_an_own_classifier_behind_a_shipped_purifier_gets_one(own, tmp_path):
    entry = f'name = "adp"\nparams = {{ classifier = "{own}:net", steps = 1, runs = 1 }}'
    assert len(run(tmp_path, entry)[1]) == 1


def test_other_data_get_none(own, tmp_path):
    data = load_dataset("digits")
    np.savez(tmp_path / "mine.npz", x=data.x[:3].numpy(), y=data.y[:3].numpy(), num_classes=10)
    words = ("--defense", f"{own}:net", "--dataset", tmp_path / "mine.npz", "--eps", "1/5", "--attack", "bench:square")
    done = purebench_here("run", *words, "--out", tmp_path / "out", "--workers", "0")
    assert (done.returncode, "note:" in done.stderr) == (0, False)


def test_models_in_memory_get_one_too(caplog):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    wrapped = Classifier(net, num_classes=10, input_shape=(1, 8, 8))
    for model in (net, wrapped, FixedBatch(net, 2)):
        bench.benchmark(model, **FEW)
        assert caplog.text.count("is a permutation of scikit-learn's images: if ") == 1
        caplog.clear()
    bench.benchmark(load_model("undefended"), **FEW)
    bench.benchmark("adp", draws=1, selection=1, **FEW)
    assert caplog.messages == []


def test_weights_that_are_asked_for_on_other_data_are_noted(caplog):
    data = load_dataset("digits")
    bench.benchmark(load_model("undefended"), dataset=(data.x[:3], data.y[:3]), **FEW)
    (note,) = caplog.messages
    assert note.startswith("note: undefended has weights for other data than ")


def test_images_of_scikit_learns_order_get_a_note(tmp_path):
    from sklearn.datasets import load_digits

    x = torch.tensor(load_digits().images[-500:, None] / 16, dtype=torch.float32)
    np.savez(tmp_path / "theirs.npz", x_adv=(x[:40] + 0.1).clamp(0, 1).numpy())
    np.savez(tmp_path / "ours.npz", x_adv=(load_dataset("digits").x[:40] + 0.1).clamp(0, 1).numpy())
    words = ("--defense", "undefended", "--eps", "1/5", "--workers", "0", "--minimisation", "--out", tmp_path / "out")
    told = purebench_here("judge", tmp_path / "theirs.npz", *words).stderr
    assert told.count("of the first 20 images of theirs are nearer to other images than those of the test split") == 1
    assert "images of theirs are nearer" in " ".join((tmp_path / "out/tables.txt").read_text().split())
    told = purebench_here("judge", tmp_path / "ours.npz", *words[:-1], tmp_path / "ours").stderr
    assert "nearer" not in told
