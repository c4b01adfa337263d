"""What users of the ecosystem type is taken, or answered with the remedy: arrays, NumPy numbers, names of others."""

import numpy as np
import pytest
import torch
from boards import purebench_here
from torch import nn

import bench
from bench import benchmark
from bench.analysis.results import load_cells
from bench.attacks.registry import find_attack
from bench.cli.main import main
from defenses import load_model
from defenses.data import load_dataset
from defenses.utils.errors import UserError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_images_and_labels_in_memory(tmp_path):
    data = load_dataset("digits")
    model = load_model("undefended").network
    options = {"eps": "1/5", "attacks": "bench:pgd", "n_examples": np.int64(6), "batch_size": np.int32(6)}
    by_name = benchmark(model, dataset="digits", **options)
    for x, y in (
        (data.x[:6], data.y[:6]),
        (data.x[:6].numpy(), data.y[:6].numpy()),
        ((data.x[:6] * 255).round().to(torch.uint8).numpy()[:, 0], data.y[:6].tolist()),
    ):
        frame = benchmark(model, dataset=(x, y), **options)
        assert len(frame) == len(by_name)
        assert frame.query("attack == 'none'")["accuracy"].tolist() == [1.0] * 6
    same = benchmark(model, dataset=(data.x[:6], data.y[:6]), **options)
    clean = "attack == 'none'"
    assert same.query(clean)["margin"].tolist() == by_name.query(clean)["margin"].tolist()


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ((torch.zeros(3, 1, 8, 8),), "a tuple of 1; give"),
        ((torch.zeros(3, 1, 8, 8), torch.zeros(2, dtype=torch.int64)), "3 images and 2 labels"),
        ((torch.full((3, 1, 8, 8), 7.0), torch.zeros(3, dtype=torch.int64)), r"images must lie in \[0, 1\]"),
        ((torch.zeros(3, 1, 8, 8), torch.zeros(3)), "labels must be whole numbers"),
        (torch.utils.data.DataLoader([]), r"is a DataLoader; give .*: x, y = map\(torch\.cat, zip\(\*loader\)\)"),
        (torch.utils.data.TensorDataset(torch.zeros(9, 1, 8, 8)), r"is a TensorDataset; give a name .* or \(x, y\)"),
        (torch.zeros(500, 1, 8, 8), "is a Tensor; give a name"),
        (load_dataset("digits"), "is a Dataset; give a name"),
    ],
)
def test_arrays_that_are_no_data_set_are_one_short_line(dataset, words):
    with pytest.raises(UserError, match=words) as caught:
        benchmark(load_model("undefended").network, dataset=dataset, eps="1/5", attacks="bench:pgd")
    assert len(str(caught.value)) < 200


def test_a_class_in_place_of_a_model_is_one_line():
    with pytest.raises(UserError, match=r"^the model is the class Flatten; give an instance, as Flatten\(\)$"):
        benchmark(torch.nn.Flatten, eps="1/5", attacks="bench:pgd")


def test_a_data_set_prints_in_one_line():
    assert repr(load_dataset("digits")) == "Dataset('digits', 'test', x=[500, 1, 8, 8], num_classes=10)"


@pytest.mark.parametrize("name", ["AutoAttack", "autoattack", "auto_attack", "AA"])
def test_autoattack_by_itself_suggests_its_versions(name):
    with pytest.raises(UserError, match="did you mean autoattack:standard, or autoattack:rand"):
        find_attack(name)


def test_a_misspelt_command_gets_its_nearest_name(capsys):
    assert main(["rnu", "quickstart"]) == 2
    assert capsys.readouterr().err == 'purebench: unknown command "rnu"; did you mean run or train?\n'


def test_a_fraction_without_quotes_in_a_board(tmp_path):
    (tmp_path / "b.toml").write_text('dataset = "digits"\nthreat = { norm = "Linf", eps = 8/255 }\n')
    done = purebench_here("plan", tmp_path / "b.toml")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith('write fractions in quotes, as eps = "8/255"')


def test_a_fraction_without_quotes_in_a_poisoning_board(tmp_path):
    (tmp_path / "p.toml").write_text('dataset = "digits"\n[[attack]]\nname = "clean-label"\neps = 1/5\n')
    done = purebench_here("poison", tmp_path / "p.toml")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith('write fractions in quotes, as eps = "8/255"')


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("defenses.broken:Quantised", "did you mean defenses.zoo.obfuscated:Quantised?"),
        ("bench.screened:bpda_eot", "did you mean bench.attacks.bpda_eot:bpda_eot?"),
        ("defenses.broken:Nothing", "it must be importable or a .py file"),
        ("defenses.zoo.obfuscated:Quantized", "did you mean Quantised?"),
        (
            "defenses.zoo.obfuscated:X",
            'unknown name in defenses.zoo.obfuscated "X"; known: Dithered, Quantised, Saturated',
        ),
        ("digit", 'unknown data set "digit"; did you mean digits?'),
    ],
)
def test_a_name_of_before_or_nearly_right_gets_the_present_one(name, words):
    more = ("--defense", "adp", "--dataset", name) if name == "digit" else ("--defense", name, "--dataset", "digits")
    done = purebench_here("run", *more, "--eps", "1/5", "--attack", "bench:square", "--out", "unused")
    assert (done.returncode, done.stderr.strip().endswith(words)) == (2, True), done.stderr


def test_own_data_are_not_judged_with_weights_for_others(tmp_path):
    data = load_dataset("digits")
    np.savez(tmp_path / "mine.npz", x=data.x[:9].numpy(), y=data.y[:9].numpy())
    words = ("--defense", "undefended", "--eps", "1/5", "--attack", "bench:square", "--out", tmp_path / "out")
    done = purebench_here("run", *words, "--dataset", tmp_path / "mine.npz")
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)
    assert 'no weights of "undefended" for "' in done.stderr
    with pytest.raises(UserError, match='no weights of "undefended" for'):
        benchmark("undefended", dataset=(data.x[:9], data.y[:9]), eps="1/5")


def test_a_file_as_defense_is_told_how_to_name_its_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("class Net: ...\n")
    done = purebench_here("plan", "--defense", "net.py", "--dataset", "digits", "--eps", "1/5", "--attack", "bench:pgd")
    assert done.stderr == 'purebench: "net.py" is a file; name the class in it, as net.py:Net\n'
    with pytest.raises(UserError, match=r'"net.pt" is a checkpoint; name a class .* as net.py:Net'):
        benchmark("net.pt", 4, eps="1/5")


def test_a_library_that_a_plug_in_lacks_is_named(tmp_path):
    (tmp_path / "im.py").write_text("import nosuchlib\n")
    with pytest.raises(
        UserError, match=r"No module named 'nosuchlib'; install nosuchlib, or put it beside the file that"
    ):
        benchmark(f"{tmp_path}/im.py:Net", 4, eps="1/5")


def test_a_plan_of_less_than_a_block_tells_its_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--defense", "trades", "--dataset", "digits", "--eps", "1/5", "--indices", "first-20")
    done = purebench_here("plan", *words, "--attack", "bench:square")
    assert "3 cells of up to 20 images, 60 adversarial images" in done.stdout, done.stderr


def test_a_plan_tells_of_attacks_in_another_norm_what_a_run_tells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--defense", "undefended", "--dataset", "digits", "--norm", "Linf", "--eps", "1/5", "--indices", "first-2")
    words = (*words, "--attack", "foolbox:L2PGD", "foolbox:LinfPGD", "torchattacks:PGDL2", "--out", "r")
    plan = [line for line in purebench_here("plan", *words).stdout.splitlines() if "unsupported" in line]
    assert purebench_here("run", *words, "--workers", 0, "--quiet").returncode == 0
    ran = load_cells("r")
    ran = ran[ran["status"] == "unsupported"]
    assert list(ran["attack"]) == ["foolbox:L2PGD", "torchattacks:PGDL2"]
    assert [line.partition(" | unsupported: ")[2] for line in plan] == list(ran["error"])


def _images(shape=(2, 1, 8, 8)):
    return torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bench.summary(3), "the results are '3'; give the folder of a run"),
        (lambda: bench.table(None), "the results are 'None'; give the folder"),
        (lambda: bench.load_results(3), "the results are '3'"),
        (lambda: bench.leaderboard(3), "the results are '3'"),
        (lambda: bench.claims_table(3), "the results are '3'"),
        (lambda: bench.compare(3, "adp", "undefended"), "the results are '3'"),
        (lambda: bench.run_preset(None, "undefended"), 'unknown preset "None"; known: '),
        (lambda: bench.run_preset("standard", "undefended", norm="L0", eps=1), "of Linf, L2, L1 and not of L0$"),
        (
            lambda: bench.judge("undefended", *_images(), norm="Linf"),
            '^judge takes the norm as threat_model="Linf", not as norm$',
        ),
        (lambda: load_model("adp", dataset=3), 'dataset is 3; give a name, as "digits"'),
        (
            lambda: bench.clean_accuracy(nn.Unflatten(1, (1, 1)).eval(), *_images()),
            r"returns shape \(2, 1, 1, 8, 8\) for 2 images",
        ),
        (lambda: bench.benchmark("undefended", eps="1/5", device="gpu"), "torch knows none of that name; try cpu"),
    ],
)
def test_other_kinds_of_values_are_one_line(call, words):
    with pytest.raises(UserError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
