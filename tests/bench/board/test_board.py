"""Test the meaning of boards and their refusals, without torch."""

import subprocess
import sys

import numpy as np
import pytest
from boards import ROOT, write_board

from bench.board.load import load_board, read_board
from defenses.utils.errors import UserError, unknown

BOARD = """
dataset = "digits"
indices = "first-20"
block = 10
[threat]
norm = "Linf"
eps = "1/5"
[[defense]]
name = "undefended"
[[defense]]
name = "adp"
[[attack]]
name = "foolbox:LinfPGD"
params = { steps = 3 }
"""


def load(folder, text, **options):
    path = folder / "own.toml"
    path.write_text(text)
    return load_board(path, **options)


def refused(folder, text, words):
    with pytest.raises(UserError, match=words) as caught:
        load(folder, text)
    assert "\n" not in str(caught.value)
    assert "own.toml" in str(caught.value)


def views(board, defense="adp"):
    cells = [c for c in board.cells() if c.defense.label == defense and c.attack.name not in ("none", "uniform")]
    return list(dict.fromkeys((c.view.gradient, c.view.eot, c.view.runs, c.view.output) for c in cells))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('[[defense]]\nname = "adp"\nlabel = "again"', '"again" is the same as "adp"'),
        ('[[defense]]\nname = "undefended"\nlabel = "mine (training seed 1)"', "one of several trainings"),
        ('[[defense]]\nname = "adp"\nlabel = "again"\nparams = { sigma = 0.25 }', '"again" is the same as "adp"'),
        ('[[attack]]\nname = "foolbox:LinfPGD"\nlabel = "again"\nparams = { steps = 3 }', '"again" is the same as'),
        *(
            (f'[[attack]]\nname = "foolbox:LinfPGD"\nlabel = "{label}"', "is taken by a row")
            for label in ("none", "uniform", "worst case", "Worst-Case", "clean images", "uniform_noise")
        ),
        ('[[attack]]\nname = "none"', "judged on every board"),
    ],
)
def test_nothing_vanishes(tmp_path, more, words):
    refused(tmp_path, BOARD + more, words)


def test_a_threat_given_twice_is_refused(tmp_path):
    refused(tmp_path, BOARD.replace('eps = "1/5"', 'eps = ["1/5", 0.2]'), "threat .* occurs twice")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "undefended"', 'name = "undefended"\nlabel = 3', "label in ..defense.. 1 is 3; it must be a text"),
        ('name = "undefended"', "name = 3", "name in ..defense.. 1 is 3"),
        ('name = "undefended"', 'name = "undefended"\nparams = 3', "params in ..defense.. 1 is 3; it must be a table"),
        ('indices = "first-20"', "indices = 5", "indices in the board is 5"),
        ('dataset = "digits"', "dataset = 5", "dataset in the board is 5"),
        ('dataset = "digits"', 'dataset = "digits"\nsplit = 3', "split in the board is 3"),
        ('dataset = "digits"', 'dataset = "digits"\nbudget = 3', "budget in the board is 3"),
        ('dataset = "digits"', 'dataset = "digits"\ntitle = 3', "title in the board is 3"),
        ('dataset = "digits"', 'dataset = "digits"\nseed = "a"', 'seed in the board is "a"; it must be a whole number'),
        ('dataset = "digits"', 'dataset = "digits"\nseed = -1', "seed in the board is -1; it must be a whole number"),
        ('dataset = "digits"', 'dataset = "digits"\nbudget = "huge"', 'budget in the board .* "full" or "reduced"'),
        ('dataset = "digits"', 'dataset = "digits"\nname = "../../x"', "name in the board .* can name a folder"),
        ('dataset = "digits"', 'dataset = "digits"\nthreads = true', "threads in the board is True"),
        ("steps = 3 }", "steps = 3 }\non = 3", "on in ..attack.. 1 is 3"),
        ("steps = 3 }", "steps = 3 }\nviews = []", r"views in ..attack.. 1 is \[\]"),
        ("steps = 3 }", "steps = 3 }\nviews = [{ eot = true }]", "eot in views 1 of ..attack.. 1 is True"),
        ('eps = "1/5"', "eps = []", r"eps in .threat. is \[\]"),
        ('eps = "1/5"', "eps = true", "eps in .threat. is True"),
        ('eps = "1/5"', 'eps = "1/5"\ntargets = 3', "targets in .threat. is 3"),
        ("[[attack]]", "[attack]", r"headed \[\[attack\]\]"),
    ],
)
def test_values_of_a_wrong_kind(tmp_path, old, new, words):
    assert old in BOARD
    refused(tmp_path, BOARD.replace(old, new, 1), words)


@pytest.mark.parametrize("key", ["defense", "attack"])
def test_an_empty_list_is_refused(tmp_path, key):
    rest = BOARD.split("[[defense]]")[0] if key == "defense" else BOARD.split("[[attack]]")[0]
    other = "" if key == "attack" else '[[attack]]\nname = "foolbox:LinfPGD"\n'
    refused(tmp_path, f"{key} = []\n{rest}{other}", rf"headed \[\[{key}\]\]")


def test_views_without_what_makes_no_difference(tmp_path):
    extra = """views = [{ gradient = "blind", eot = 8, runs = 1 }, { gradient = "blind", output = "log-mean-prob" },
        { eot = 2, output = "log-mean-prob" }]"""
    board = load(tmp_path, BOARD + extra)
    assert views(board) == [("blind", 1, None, "logits"), ("exact", 2, None, "log-mean-prob")]
    assert views(board, "undefended") == [("exact", 1, None, "logits")]


def test_copies_are_told_of_stochastic_defenses_alone(tmp_path):
    path = write_board(tmp_path)
    path.write_text(f'{path.read_text()}\n[[attack]]\nname = "bench:apgd"\n')
    cells = [cell for cell in load_board(path).cells() if cell.attack.name == "bench:apgd"]
    told = {cell.defense.label: any("copies of a random" in w for w in cell.attack.warnings) for cell in cells}
    assert told == {"linear": False, "noisy": True}


def test_a_user_module_has_no_runs(tmp_path):
    path = write_board(tmp_path)
    text = path.read_text().replace(":linear", ":GlobalNoise").replace('label = "linear"', "stochastic = true")
    board = load(tmp_path, text.replace("{ eot = 2 }", "{ eot = 2, runs = 1 }"))
    label = board.defenses[0].label
    assert views(board, label)[0] == ("exact", 2, None, "logits")
    assert views(board, "noisy")[0] == ("exact", 2, 1, "logits")


@pytest.mark.parametrize(("sigma", "stochastic"), [("0", False), ("0.0", False), ("1/4", True)])
def test_a_purifier_without_noise_is_deterministic(tmp_path, sigma, stochastic):
    from defenses import load_model

    text = BOARD.replace('name = "adp"', f'name = "adp"\nparams = {{ sigma = "{sigma}" }}')
    adp = load(tmp_path, text).defenses[1]
    assert adp.stochastic == stochastic
    assert load_model("adp", sigma=sigma).stochastic == stochastic


def test_data_root(tmp_path):
    (tmp_path / "data").mkdir()
    data = {"x_test": np.zeros((4, 8, 8), np.float32), "y_test": np.arange(4), "num_classes": 10}
    np.savez(tmp_path / "data" / "own-points.npz", **data)
    write_board(tmp_path)
    text = BOARD.replace('"digits"', '"own-points.npz"').replace("first-20", "all").split("[[defense]]")[0]
    text += f'[[defense]]\nname = "{tmp_path}/models.py:linear"\n[[attack]]\nname = "foolbox:LinfPGD"\n'
    board = load(tmp_path, text, data_root=tmp_path / "data")
    assert {c.data.stop for c in board.cells()} == {4}
    refused(tmp_path, text, "own-points.npz")


PLUGIN = """
import torch
from torch import nn
from defenses.core.defense import Classifier, Defense
def raises():
    raise ValueError("no such\\nweights")
class Own(Defense):
    def logits(self, x, noise, *, gradient="exact", runs=None):
        return x.flatten(1)[:, :10]
"""


@pytest.mark.parametrize(
    ("text", "name", "more", "words"),
    [
        (PLUGIN, "{file}:raises", "", "cannot be built: ValueError: no such weights$"),
        (PLUGIN + "\ndef f(:\n", "{file}:raises", "", r"plug.py, line 11: "),
        (PLUGIN + "\n1 / 0\n", "{file}:raises", "", "plug.py.* failed: ZeroDivisionError"),
        (PLUGIN, ":x", "", "names nothing"),
        (PLUGIN, "{file}:", "", "names nothing"),
        (PLUGIN, "{file}:Own", "stochastic = true", "says itself whether it is stochastic"),
    ],
)
def test_plugins_that_cannot_be_loaded(tmp_path, text, name, more, words):
    file = tmp_path / "plug.py"
    file.write_text(text)
    refused(tmp_path, BOARD.replace('name = "adp"', f'name = "{name.format(file=file)}"\n{more}'), words)


def test_a_module_beside_a_plugin_is_part_of_it(tmp_path, monkeypatch):
    from defenses.utils.plugins import code_hash

    (tmp_path / "plug.py").write_text("import torch\nfrom beside import deep\n")
    (tmp_path / "beside.py").write_text("import deeper\ndeep = 1\n")
    (tmp_path / "deeper.py").write_text("a = 1\n")
    (tmp_path / "other.py").write_text("a = 1\n")
    hashes = [code_hash(f"{tmp_path}/plug.py:f")]
    for name in ("other", "deeper", "beside", "plug"):
        with (tmp_path / f"{name}.py").open("a") as file:
            file.write("b = 2\n")
        hashes.append(code_hash(f"{tmp_path}/plug.py:f"))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4
    monkeypatch.chdir(tmp_path)
    assert code_hash("plug.py:f") == hashes[-1]


def test_a_file_that_has_changed_is_loaded_anew(tmp_path):
    from defenses import load_model

    file = tmp_path / "plug.py"
    for name in ("a", "b"):
        file.write_text(PLUGIN + f"\ndef make():\n    model = Own()\n    model.{name} = 1\n    return model\n")
        assert hasattr(load_model(f"{file}:make"), name)


def test_boards_need_no_torch():
    code = "import sys; from bench.board.load import load_board; load_board('quickstart'); "
    code += "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_long_lists_of_names_are_cut():
    names = [f"name{i:03}" for i in range(200)]
    assert str(unknown("thing", "xyz", names)).endswith("name009 and 190 more")


def test_a_surrogate_that_is_no_cheaper_is_refused_with_the_board():
    attack = {"name": "bench:pgd", "on": "ebm-mcmc"}
    raw = {
        "dataset": "digits",
        "threat": {"norm": "Linf", "eps": "1/5"},
        "defense": [{"name": "ebm-mcmc"}],
        "attack": [attack | {"views": [{"gradient": "surrogate:25"}, {"gradient": "difference:0.05"}]}],
    }
    views = {cell.view.gradient for cell in read_board(raw, "b").cells()}
    assert {"surrogate:25", "difference:1/20"} < views
    raw["attack"] = [attack | {"views": [{"gradient": "surrogate:100"}]}]
    with pytest.raises(UserError, match="ebm-mcmc has 100 steps; its surrogate must have fewer, and not 100"):
        read_board(raw, "b").cells()
