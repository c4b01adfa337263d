"""`purebench show`: what is known of a name, on one page."""

import json
import re

import pytest
from boards import ROOT, purebench_here, write_board
from terminals import on_terminal

from bench.attacks.libraries import autoattack
from bench.attacks.registry import attack_names, attack_parameters
from bench.board.load import board_names
from bench.board.presets import preset_names
from defenses.zoo.cards import card, list_models


def shown(name, *more):
    result = purebench_here("show", name, "--json", *more)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_defense_has_what_its_card_says():
    (found,) = shown("adp")
    assert (found["is"], found["kind"], found["family"]) == ("defense", "purifier", "purifiers")
    assert found["gradient modes"] == list(card("adp").gradients)
    assert found["weights that come along"] == ["cifar10", "digits", "mnist"]
    assert "https://arxiv.org/abs/2106.06041" in found["paper"]
    steps = next(row for row in found["parameters"] if row["parameter"] == "steps")
    assert (steps["default"], steps["digits"]) == (10, 5)
    shown_claims = {(c["kind"], c["dataset"], c["threat"]): c["robust"] for c in found["published claims"]}
    assert shown_claims == {  # of several re-evaluations the lowest
        ("claim", "cifar10", "Linf 8/255"): "0.7001",
        ("claim", "cifar100", "Linf 8/255"): "0.3972",
        ("re-evaluation", "cifar10", "Linf 8/255"): "0.3348",
        ("re-evaluation", "cifar10", "L2 1/2"): "0.7426",
    }


@pytest.mark.parametrize("name", [*list_models(), *preset_names(), *(n for n in board_names() if "defenses" not in n)])
def test_every_name_has_a_page_without_gaps(name):
    text = purebench_here("show", name).stdout
    assert text.startswith(f"{name}: ")
    assert "{" not in text
    assert "None" not in text


def test_an_attack_has_parameters_norms_and_needs():
    (found,) = shown("foolbox:LinfPGD")
    assert found["norms"]["Linf"] == "runs"
    assert found["asks for"] == "gradients"
    assert "its default of 40 steps is short" in found["remarks"]
    assert {"parameter": "steps", "default": 40} in found["parameters"]
    (found,) = shown("torchattacks:TIFGSM")
    assert "3 channels" in found["needs"]
    assert "eps" not in {row["parameter"] for row in found["parameters"]}


def test_every_attack_tells_its_parameters():
    """What is told is what a board may set: `find_attack` takes each of them, by its name."""
    for name in attack_names():
        parameters = attack_parameters(name)
        assert parameters is not None, name
        assert set(parameters.required) <= set(parameters.names)
        assert len(set(parameters.names)) == len(parameters.names)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("version", ["standard", "plus", "rand", "custom"])
def test_defaults_of_autoattack_are_those_of_the_library(version, norm):
    import torch

    listed = {"attacks": ["square"]} if version == "custom" else {}
    suite = autoattack._library()(torch.nn.Identity(), norm=norm, eps=0.1, version=version, **listed)
    for part, values in autoattack.defaults_of(version, norm).items():
        held = getattr(suite, part)
        assert {k: getattr(held, autoattack._SETTINGS[part].get(k, k)) for k in values} == values, part


def test_a_data_set_has_shape_splits_and_files(tmp_path):
    (found,) = shown("mnist", "--data-root", tmp_path)
    assert (found["shape"], found["classes"], found["splits"]["test"]) == ([1, 28, 28], 10, 10000)
    assert set(found["files"].values()) == {"missing"}
    assert str(tmp_path) in found["folder"]
    assert shown("digits")[0]["files"] == "come with scikit-learn"
    assert shown("corrupted:digits/contrast/3")[0]["splits"] == {"validation": 297, "test": 500}


def test_a_name_of_two_kinds_shows_both():
    assert [found["is"] for found in shown("diffpure")] == ["defense", "preset"]
    assert [found["is"] for found in shown("robustbench")] == ["index list", "preset"]


def test_a_preset_says_what_it_sets_and_how_it_differs():
    found = shown("diffbreak")[0]
    assert found["sets"]["verdict.k"] == 11
    assert found["eps"] == {"cifar10 Linf": "8/255"}
    assert "since ten may tie" in found["how it differs"]
    assert found["attacks"][0]["attack"] == "autoattack:apgd-ce-best-loss"


def test_a_board_by_name_and_by_file(tmp_path):
    (found,) = shown("digits-linf")
    assert found["size"].startswith("185 cells of up to 100 images, 18500 ")
    assert [row["defense"] for row in found["defenses"]] == ["undefended", "pgd-at", "adp", "ebm-mcmc"]
    (found,) = shown(write_board(tmp_path))
    assert found["data"] == "digits test, first-60: 60 images"
    assert [row["attack"] for row in found["attacks"]][1] == "autoattack:apgd-ce"


def test_own_code_of_each_kind():
    examples = ROOT / "bench/examples"
    (found,) = shown(examples / "own_purifier.py:OwnPurifier")
    assert "surrogate" in found["gradient modes"]
    assert {"parameter": "steps", "default": 3} in found["parameters"]
    (found,) = shown(examples / "own_classifier.py:OwnClassifier")
    assert (found["is"], found["kind"]) == (
        "defense",
        "plain torch module (stochastic = true on a board if it is random)",
    )
    (found,) = shown(examples / "own_attack.py:sign_steps")
    assert (found["is"], found["parameters"]) == ("attack", [{"parameter": "steps", "default": 3}])
    (found,) = shown(examples / "own_data.py:load")
    assert (found["is"], found["classes"]) == ("data set", 10)


def test_own_code_that_prints_and_values_that_are_no_defense(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import torch\nprint('loud')\nsize = 3\nclass Net(torch.nn.Module):\n    pass\n")
    (found,) = shown(f"{file}:Net")
    assert found["about"] == ""
    result = purebench_here("show", f"{file}:size")
    assert result.returncode == 2
    assert "is no class, function or module but int" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adpp", "did you mean adp"),
        ("foolbox:LinfPDG", "did you mean foolbox:LinfPGD"),
        ("cifra10", "did you mean cifar10"),
        ("absent.py:Net", "there is no file absent.py"),
        ("absent.toml", "there is no file absent.toml"),
        (f"{ROOT}/bench/examples/own_attack.py:sign_step", "did you mean sign_steps?"),
        ("robustbench:Nobody2020", "unknown name"),
        ("first-1x", "did you mean first-N"),
        ("pgd", "did you mean bench:pgd or foolbox:PGD or torchattacks:PGD or"),
        ("Square", "did you mean autoattack:square or bench:square or torchattacks:Square"),
    ],
)
def test_an_unknown_name_is_one_line(name, message):
    result = purebench_here("show", name)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_index_list_says_which_images_it_has():
    assert purebench_here("show", "first-100").stdout == (
        "first-100: index list\nthe first 100 images of a split, in its order\n"
    )
    shown = purebench_here("show", "stratified-10-seed1").stdout
    assert "10 images of a split, ordered by a hash of the seed 1" in shown
    assert "in rounds of one image of each class" in shown


def test_a_page_fits_the_terminal_and_is_whole_elsewhere():
    wide = purebench_here("show", "adp").stdout
    assert "\033" not in wide
    assert any(len(line) > 100 for line in wide.splitlines())
    page = on_terminal("show", "adp", columns=80)
    assert max(map(len, page.splitlines())) <= 80
    assert re.sub(r"\s+", "", page).startswith("adp:defenseNoiseisinjected")
