"""Choice of deployment parameters: the rule in closed form, the command, its table beside the weights, bad input."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from boards import ROOT, purebench_here

from bench.tracks.tuning import choice
from bench.tracks.tuning.choice import CandidateScores, choose, measured
from bench.tracks.tuning.grid import grid_of
from defenses.utils.checksums import is_whole
from defenses.utils.errors import UserError
from defenses.zoo.cards import card, list_models
from defenses.zoo.weight_paths import has_weights

GRID = ("--grid", "sigma=1/10,1/4", "steps=2", "--eps", "1/5", "--indices", "first-20", "--block", "20")


def row(label, clean, transfer, evaluations):
    return CandidateScores(label, np.asarray(clean, float), np.asarray(transfer, float), evaluations)


def test_the_rule_in_closed_form():
    n = 100
    best = row("best", [1] * n, [1] * 60 + [0] * 40, 50)
    # Score per image lower by 1/2 on two images: mean .01, standard error sqrt(.02 .98 / 4 / 99) = .00704.
    worse = row("worse", [1] * n, [1] * 58 + [0] * 42, 10)
    assert choose([worse, best]) is best
    # Lower on two images and higher on one: mean .005, standard error .0086.
    as_good = row("as good", [1] * n, [1] * 58 + [0, 0, 1] + [0] * 39, 10)
    assert choose([best, as_good]) is as_good
    assert choose([best, row("dearer", best.clean, best.transfer, 80)]) is best
    first = row("first", best.clean, best.transfer, 50)
    assert choose([first, best]) is first


def test_numbers_of_a_candidate():
    numbers = row("a", [1, 1, 0.5, 1], [1, 0, 0, 0.5], 7).numbers()
    assert numbers["clean"] == 0.875
    assert numbers["transfer"] == 0.375
    assert numbers["score"] == 0.625
    assert numbers["clean_interval"][0] < 0.875 < numbers["clean_interval"][1]


@pytest.fixture
def weights(tmp_path):
    """The digits weights of adp and its classifier in a folder that may be written to."""
    folder = tmp_path / "weights" / "digits"
    folder.mkdir(parents=True)
    for path in (ROOT / "defenses" / "weights" / "digits").iterdir():
        if path.stem in ("adp", "undefended"):
            shutil.copy(path, folder)
    return folder


def test_the_command_keeps_its_table_beside_the_weights_and_resumes(weights, tmp_path):
    options = (*GRID, "--weights-root", weights.parent, "--out", tmp_path / "out", "--workers", 0)
    done = purebench_here("tune", "adp", *options)
    assert done.returncode == 0, done.stderr
    text = (weights / "adp.tune.json").read_text()
    content = json.loads(text)
    assert is_whole(content)
    assert [row["parameters"] for row in content["candidates"]] == [
        {"sigma": "1/10", "steps": 2},
        {"sigma": "1/4", "steps": 2},
    ]
    # Ten runs of two steps and one of a denoising network, ten classifications: 10 x (2 + 1 + 1) and step sizes.
    assert {row["evaluations"] for row in content["candidates"]} == {50.0}
    assert content["chosen"] in [row["parameters"] for row in content["candidates"]]
    assert "params = { sigma = " in done.stdout
    assert "chosen" in done.stdout
    again = purebench_here("tune", "adp", *options)
    assert again.returncode == 0
    assert "[1/" not in again.stderr
    assert (weights / "adp.tune.json").read_text() == text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("adp", "--grid", "sigmo=1/10"), "did you mean sigma"),
        (("adp", "--grid", "sigma=a"), 'sigma is "a"; it must be'),
        (("adp", "--grid", "sigma="), "the grid has no value of sigma"),
        (("adp", "--grid", "sigma"), '"sigma" is not KEY=VALUE'),
        (("adp", "--grid", "sigma=1/4", "sigma=1/5"), "sigma is given twice"),
        (("adp", "--grid", "sigma=1/4", "--set", "sigma=1/5"), "sigma is in the grid and fixed by --set"),
        (("adb", "--grid", "sigma=1/4"), "did you mean adp"),
        (("jpeg", "--grid", "quality=50,75"), "no weights to keep a table beside"),
        (("adp", "--grid", "sigma=1/4", "--eps", "8/0"), '"8/0" is not a number'),
        (("trades",), "has no grid for digits; give one, as --grid"),
        (("adp", "--grid", *(f"{k}=1,2,3,4,5,6,7,8,9,10" for k in ("steps", "sigma", "lam"))), "1000 candidates"),
        (("adp", "--grid", "sigma=1/4", "--dataset", "svhn"), "no weights of"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(options, words, tmp_path):
    eps = () if "--eps" in options else ("--eps", "1/5")
    done = purebench_here("tune", *options, *eps, "--out", tmp_path / "out")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line
    assert not (tmp_path / "out").exists()


def test_no_radius_is_one_line():
    with pytest.raises(UserError, match="has no eps for digits; give it, as --eps 8/255"):
        grid_of("adp", "digits", values={"sigma": ["1/4"]})


def test_candidates_that_failed_are_told_and_not_chosen(monkeypatch, tmp_path):
    cells = pd.DataFrame(
        [
            {"defense": d, "attack": a, "status": s, "error": e, "images": 2, "draws": 1, "selection": 0}
            | {"forwards_verdict": 4, "backwards_verdict": 0}
            for d, s, e in (("good", "ok", None), ("bad", "error", "RuntimeError: no"))
            for a in ("none", "uniform", "transfer")
        ]
    )
    frame = pd.DataFrame(
        [{"defense": "good", "attack": a, "image": i, "accuracy": 1.0} for a in ("none", "transfer") for i in (0, 1)]
    )
    monkeypatch.setattr(choice, "load_cells", lambda _: cells)
    monkeypatch.setattr(choice, "load_results", lambda _: frame)
    rows, failed = measured(tmp_path, ["good", "bad"])
    assert [r.label for r in rows] == ["good"]
    assert rows[0].evaluations == 2
    assert failed == {"bad": "RuntimeError: no"}
    with pytest.raises(UserError, match="no candidate of the grid ran; bad: RuntimeError: no"):
        measured(tmp_path, ["bad"])


def test_a_candidate_that_cannot_be_benchmarked_is_left_out(tmp_path):
    weights = tmp_path / "weights" / "digits"
    weights.mkdir(parents=True)
    for path in (ROOT / "defenses" / "weights" / "digits").iterdir():
        if path.stem in ("ebm-mcmc", "undefended"):
            shutil.copy(path, weights)
    options = ("--set", "runs=1", "--eps", "1/5", "--indices", "first-10", "--draws", 1, "--workers", 0)
    options += ("--weights-root", weights.parent, "--out", tmp_path / "out", "--grid")
    done = purebench_here("tune", "ebm-mcmc", *options, "steps=2", "eps=1/100,1e30")
    assert done.returncode == 0, done.stderr
    content = json.loads((weights / "ebm-mcmc.tune.json").read_text())
    assert [row["parameters"] for row in content["candidates"]] == [{"steps": 2, "eps": "1/100"}]
    ((name, reason),) = content["failed"].items()
    assert name == "steps=2 eps=1e+30"
    assert "without overflow" in reason
    assert "error: " in done.stdout
    done = purebench_here("tune", "ebm-mcmc", *options, "steps=2", "eps=1e30")
    assert done.returncode == 2
    assert "no candidate of the grid runs" in done.stderr.splitlines()[-1]
    assert json.loads((weights / "ebm-mcmc.tune.json").read_text()) == content


def test_cards_with_a_grid_take_its_parameters():
    for name in list_models():
        for dataset, entry in card(name).tune.items():
            grid = grid_of(name, dataset)
            assert len(grid.candidates()) > 1
            for candidate in grid.candidates():
                card(name).merged(dataset, candidate)
            assert entry["eps"]


@pytest.mark.parametrize(
    ("name", "dataset"), [(n, d) for n in list_models() for d in card(n).tune if has_weights(n, d)]
)
def test_parameters_of_a_card_are_those_that_the_command_chose(name, dataset):
    path = ROOT / "defenses" / "weights" / dataset / f"{name}.tune.json"
    if not path.exists():
        pytest.skip(f"{name} is not tuned on {dataset} yet")
    content = json.loads(path.read_text())
    assert card(name).merged(dataset, content["chosen"]) == card(name).merged(dataset, {})
