"""The worked examples in bench/examples: everything of one's own, without a fork."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from boards import ROOT, purebench_here
from safetensors.numpy import load_file

from bench import benchmark, load_results
from bench.analysis.results import load_cells
from bench.attacks.registry import attack_names, find_attack
from bench.board.load import load_board
from defenses import load_model
from defenses.core.defense import Purified
from defenses.core.noise import Noise
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError

EXAMPLES = ROOT / "bench" / "examples"


def install(site: Path, package: str = "own_suite", *, name: str = "own", version: str = "1.0", dist: str = "") -> None:
    """Put a distribution into a folder as pip leaves it, its code apart."""
    info = site / f"{dist or package}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist or package}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[purebench.suites]\n{name} = {package}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder for distributions, first on sys.path; what is imported from it is forgotten afterwards."""
    folder, modules, path = tmp_path / "site", set(sys.modules), [*sys.path]
    folder.mkdir()
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", [str(folder), *path])
    yield folder
    for name in set(sys.modules) - modules:
        if name.startswith(("own_suite", "other_suite")):
            del sys.modules[name]


@pytest.fixture
def own_suite(site):
    """The example suite, installed."""
    shutil.copytree(EXAMPLES / "own_suite" / "own_suite", site / "own_suite")
    install(site)
    return site


def test_examples_import_public_names_alone():
    """What a user copies must not break when a file of purebench moves."""
    public = {"bench", "bench.attacks", "bench.stats", "defenses", "defenses.data"}
    imported = {
        node.module
        for path in EXAMPLES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("bench", "defenses")
    }
    assert imported
    assert imported <= public


@pytest.mark.slow
def test_everything_on_one_board(own_suite, tmp_path):
    out = tmp_path / "out"
    done = purebench_here("run", "own.toml", "--out", out)
    assert done.returncode == 0, done.stderr
    frame = load_results(out)
    assert set(frame["defense"]) == {"own classifier", "own defense", "own purifier"}
    assert set(frame["attack"]) == {"none", "uniform", "own attack", "own:corner", "own:towards"}
    assert frame["accuracy"].notna().all()
    assert "[1/" not in purebench_here("run", "own.toml", "--out", out).stderr
    by_attack = frame[frame["defense"] == "own classifier"].groupby("attack")["accuracy"].mean()
    assert by_attack["none"] > 0.9
    assert by_attack["own attack"] < by_attack["none"]

    # The images of the suite's attack have a closed form.
    x = load_dataset("own_data.py:load").x[:20].numpy()
    cells = load_cells(out).query("attack == 'own:towards' and defense == 'own classifier' and block == 0")
    stored = load_file(out / "parts" / cells["part"].item() / "adversarial.safetensors")[cells["key"].item()]
    expected = x + np.clip(np.float32(0.4) - x, np.float32(-0.1), np.float32(0.1))
    assert np.allclose(stored, expected, atol=1e-7)

    # In worker processes: the same.
    done = purebench_here("run", "own.toml", "--out", tmp_path / "two", "--workers", 2, "--quiet")
    assert done.returncode == 0, done.stderr
    one, two = (f.sort_values(["cell", "image"]) for f in (frame, load_results(tmp_path / "two")))
    for column in ("cell", "correct", "correct_sel", "margin"):
        assert one[column].astype(str).tolist() == two[column].astype(str).tolist()

    # From Python, with the class itself: the same verdicts.
    sys.path.insert(0, str(EXAMPLES))
    from own_classifier import OwnClassifier

    again = benchmark(
        OwnClassifier(),
        dataset="own_data.py:load",
        eps="1/10",
        n_examples=40,
        batch_size=20,
        attacks=[{"name": "own_attack.py:sign_steps", "label": "own attack", "steps": 5}, "own:corner"],
    )
    for attack in ("none", "own attack"):
        here = again[again["attack"] == attack].sort_values("image")["accuracy"]
        there = frame[(frame["attack"] == attack) & (frame["defense"] == "own classifier")].sort_values("image")
        assert here.tolist() == there["accuracy"].tolist()


def test_a_purifier_stands_before_a_registered_classifier(site):
    sys.path.insert(0, str(EXAMPLES))
    from own_purifier import OwnPurifier

    x = load_dataset("digits").x[:6].clone().requires_grad_()
    noise = Noise.of(3, 6)
    named = load_model("own_purifier.py:OwnPurifier", classifier="undefended", runs=2, strength=0.5)
    made = Purified(OwnPurifier(strength=0.5), load_model("undefended"), runs=2)
    for gradient in ("exact", "bpda", "blind"):
        assert torch.equal(named.logits(x, noise, gradient=gradient), made.logits(x, noise, gradient=gradient))
    (exact,) = torch.autograd.grad(named.logits(x, noise).sum(), x)
    assert exact.abs().sum() > 0
    frame = benchmark(named, eps="1/5", n_examples=20, attacks="own_attack.py:sign_steps", draws=5, selection=3)
    mean = frame.groupby("attack")["accuracy"].mean()
    assert mean["own_attack.py:sign_steps"] < mean["none"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "is a purifier; say which classifier it is for"),
        ({"classifier": "undefendet"}, "did you mean undefended"),
        ({"classifier": "adp"}, "name a plain classifier"),
        ({"classifier": "undefended", "strenght": 1}, "strenght"),
        ({"classifier": "undefended", "runs": 0}, "at least 1"),
    ],
)
def test_a_composition_that_is_none(site, params, words):
    with pytest.raises(UserError, match=words):
        load_model("own_purifier.py:OwnPurifier", **params)


def test_an_installed_suite(own_suite, capsys):
    assert {"own:corner", "own:towards"} < set(attack_names())
    attack = find_attack("own:corner", {"tries": 2})
    assert attack.version.startswith("own 1, own_suite 1.0 ")
    with pytest.raises(UserError, match="did you mean own:corner"):
        find_attack("own:cornr")
    with pytest.raises(UserError, match="did you mean tries"):
        find_attack("own:corner", {"trys": 2})
    # Changed code, and another version of the distribution, are other attacks.
    code = own_suite / "own_suite" / "__init__.py"
    code.write_text(code.read_text() + "CHANGED = True\n")
    changed = find_attack("own:corner").version
    assert changed != attack.version
    shutil.rmtree(own_suite / "own_suite-1.0.dist-info")
    install(own_suite, version="1.1")
    assert find_attack("own:corner").version == changed.replace(" 1.0 ", " 1.1 ")


def test_what_a_suite_refuses_is_a_visible_row(own_suite, tmp_path):
    (tmp_path / "l2.toml").write_text((EXAMPLES / "own.toml").read_text().replace("Linf", "L2"))
    options = ("--defense", "own classifier", "--attack", "own:corner", "--quiet")
    done = purebench_here("run", tmp_path / "l2.toml", "--out", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    cells = load_cells(tmp_path / "out")
    refused = cells[(cells["attack"] == "own:corner") & (cells["defense"] == "own classifier")]
    assert refused["status"].tolist() == ["unsupported"] * 2
    assert refused["error"].str.contains("Linf alone, not L2").all()


@pytest.mark.parametrize(
    ("code", "name", "words"),
    [
        ("import not_there\n", "other", 'suite "other" of other_suite 1.0: cannot be imported: ModuleNotFoundError'),
        ("def names():\n    return 3\n", "other", "other_suite has no function find"),
        ("def names():\n    return 1 / 0\ndef find(a, b):\n    pass\n", "other", "names() failed: ZeroDivisionError"),
        ("def names():\n    return []\n", "foolbox", "the name of one of purebench's own, which stays; rename it"),
        ("", "no good", "a name is made of letters"),
    ],
)
def test_a_broken_suite_breaks_no_other(own_suite, code, name, words):
    (own_suite / "other_suite.py").write_text(code)
    install(own_suite, "other_suite", name=name)
    listed = purebench_here("ls", "attacks")
    assert listed.returncode == 0
    assert {"own:corner", "foolbox:LinfPGD"} < {line.split()[0] for line in listed.stdout.splitlines() if line}
    (warning,) = listed.stderr.splitlines()
    assert words in warning
    assert find_attack("foolbox:LinfPGD", {"steps": 3}).version.startswith("foolbox")
    if name != "foolbox":
        with pytest.raises(UserError, match=r"suite \"(other|no good)\" of other_suite"):
            find_attack(f"{name}:x")


def test_a_suite_that_finds_no_attack_and_two_of_one_name(own_suite):
    (own_suite / "other_suite.py").write_text("def names():\n    return []\ndef find(a, b):\n    return a\n")
    install(own_suite, "other_suite", name="other")
    with pytest.raises(UserError, match=r"gave str; it must give a bench\.attacks\.Attack"):
        find_attack("other:x")
    install(own_suite, "other_suite", name="own", dist="third")
    with pytest.raises(UserError, match='both have a suite "own"; uninstall one'):
        find_attack("own:corner")


def test_an_attack_that_changes_beside_its_file_is_another(tmp_path):
    (tmp_path / "mine.py").write_text("from helper_of_mine import f\ndef go(view, x, y):\n    return f(x)\n")
    (tmp_path / "helper_of_mine.py").write_text("def f(x):\n    return x\n")
    before = find_attack(f"{tmp_path}/mine.py:go").version
    (tmp_path / "helper_of_mine.py").write_text("def f(x):\n    return x + 0\n")
    assert find_attack(f"{tmp_path}/mine.py:go").version != before


def test_the_board_of_examples_needs_its_suite(site):
    with pytest.raises(UserError, match='unknown attack "own:corner"'):
        load_board("own.toml")


def test_a_module_beside_a_plugin_that_changes_is_imported_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "plug.py").write_text("from beside_plug import f\ndef make():\n    return f()\n")
    for k in (1, 2):
        (tmp_path / "beside_plug.py").write_text(
            f"import torch\ndef f():\n    m = torch.nn.Flatten()\n    m.k = {k}\n    return m.eval()\n"
        )
        assert load_model(f"{tmp_path}/plug.py:make").module.k == k
