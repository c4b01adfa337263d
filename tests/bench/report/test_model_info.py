"""RobustBench's model_info JSON: read, compared, and written so that RobustBench's own code takes it."""

import functools
import json
from fractions import Fraction

import pytest
from boards import ROOT, purebench_here
from fake_board import deterministic, failed, line, result, write

from bench import summary
from bench.cli.main import main
from bench.report.model_info import read_model_info
from bench.report.model_info_compare import compare
from bench.report.model_info_export import eps_text, export
from defenses.utils.errors import UserError

RESULTS = ROOT / "results" / "digits-linf"
WONG = {
    "link": "https://arxiv.org/abs/2001.03994",
    "name": "Fast is better than free: Revisiting adversarial training",
    "authors": "Eric Wong, Leslie Rice, J. Zico Kolter",
    "additional_data": False,
    "number_forward_passes": 1,
    "dataset": "cifar10",
    "venue": "ICLR 2020",
    "architecture": "ResNet-18",
    "eps": "8/255",
    "clean_acc": "83.34",
    "reported": "46.06",
    "autoattack_acc": "43.21",
}


def written(folder, raw):
    path = folder / "entry.json"
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw))
    return path


@functools.cache
def measured():
    return summary(RESULTS)


def worst(defense):
    rows = measured()
    return rows[(rows["defense"] == defense) & (rows["attack"] == "worst case")].iloc[0]["robust_mean"]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"external": "69.71", "footnote": "an ensemble", "unreliable": False, "number_forward_passes": "2"},
        {"eps": 0.5, "reported": "", "someday": [1, {"a": None}]},
        {"eps": None, "autoattack_acc": None, "corruptions_acc": "89.09", "corruptions_mce": "131.5"},
    ],
)
def test_an_entry_keeps_every_key(tmp_path, more):
    raw = {**WONG, **more}
    info = read_model_info(written(tmp_path, raw))
    assert json.loads(info.to_json()) == raw
    assert list(json.loads(info.to_json())) == list(raw)
    assert info.share("clean_acc") == pytest.approx(0.8334)


def test_numbers_of_an_entry(tmp_path):
    info = read_model_info(written(tmp_path, WONG))
    assert info.eps == Fraction(8, 255)
    assert info.share("autoattack_acc") == pytest.approx(0.4321)
    assert info.share("external") is None
    float_eps = read_model_info(written(tmp_path, {**WONG, "eps": 8 / 255}))
    assert float_eps.eps == Fraction(8, 255)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("{", "is no JSON"),
        ("[]", "is a list"),
        ({**WONG, "clean_acc": "many"}, 'clean_acc is "many"; it must be a percentage, as 43.21'),
        ({**WONG, "clean_acc": "101"}, "it must be a percentage"),
        ({**WONG, "eps": "8/25S"}, "is not a number"),
        ({**WONG, "name": 3}, "name is 3; it must be a text"),
        ({**WONG, "additional_data": "yes"}, "must be true or false"),
        ({**WONG, "number_forward_passes": True}, "must be a number"),
    ],
)
def test_entries_that_cannot_be(tmp_path, raw, words):
    with pytest.raises(UserError, match=words) as caught:
        read_model_info(written(tmp_path, raw))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("eps", "text"),
    [("8/255", "8/255"), ("5/255", "5/255"), ("1/2", "0.5"), ("3/10", "0.3"), ("12", "12"), ("1/7", "1/7")],
)
def test_a_radius_is_printed_as_robustbench_does(eps, text):
    assert eps_text(Fraction(eps)) == text


def test_the_entry_of_a_deterministic_defense():
    raw = export(RESULTS, "pgd-at", fields={"architecture": "CNN"}).raw
    rows = measured()
    rows = rows[rows["defense"] == "pgd-at"].set_index("attack")["robust_mean"]
    assert raw["clean_acc"] == f"{100 * rows['none']:.2f}"
    assert raw["autoattack_acc"] == f"{100 * rows['autoattack:standard']:.2f}"
    assert ("external" in raw) == (rows["worst case"] < rows["autoattack:standard"])
    assert (raw["eps"], raw["dataset"], raw["number_forward_passes"]) == ("0.2", "digits", 1)
    assert (raw["venue"], raw["architecture"]) == ("ICLR 2018", "CNN")


def test_the_entry_of_a_randomised_defense():
    raw = export(RESULTS, "adp").raw
    assert "autoattack_acc" not in raw
    assert raw["external"] == f"{100 * worst('adp'):.2f}"
    assert raw["number_forward_passes"] == 10 * (2 * 5 + 1)  # runs x (two scores a step, and the classifier)
    assert "rules do not admit it" in raw["footnote"]


STANDARD = {"attack": ["autoattack:standard", {}, "autoattack 1"], "view": ["exact", 1, None, "logits"]}


@pytest.mark.parametrize(
    "other",
    [
        {"source": {"name": "undefended"}},
        {"compute": ["bf16", False]},
        {"view": ["blind", 1, None, "logits"]},
        {"view": ["surrogate:5", 1, None, "logits"]},
        {"attack": ["autoattack:standard", {"n_iter": 10}, "autoattack 1"]},
    ],
)
def test_autoattack_on_something_else_is_not_that_of_the_entry(tmp_path, other):
    """Its images may be made on another network, or by a bare classifier."""
    cells = deterministic()
    for cell in cells:
        cell.line["identity"] = {"attack": [cell.line["attack"], {}, ""], "defense": {"name": "plain"}}
        cell.line["identity"]["view"] = ["exact", 1, None, "logits"]
        cell.line |= {"forwards_verdict": 6}
    aa = result(line("plain", "aa"), [1, 1, 1, 1, 0, 0])
    aa.line["identity"] = {**STANDARD, "defense": {"name": "plain"}}
    own = export(write(tmp_path / "own", [*cells, aa]), "plain").raw
    assert own["autoattack_acc"] == "66.67"
    aa.line["identity"] |= other
    raw = export(write(tmp_path / "other", [*cells, aa]), "plain").raw
    assert "autoattack_acc" not in raw
    assert raw["external"] == own["external"]


def test_attacks_that_could_not_run_are_not_counted(tmp_path):
    views = [result(line("plain", "apgd", view=view), [1] * 6) for view in ("bpda", "blind")]
    none = failed(line("plain", "ead"), "unsupported", "needs L1")
    note = export(write(tmp_path, [*deterministic(), *views, none]), "plain").raw["footnote"]
    assert "The worst case of 4 attacks per image is 33.33%; ead (exact) could not run." in note


@pytest.mark.parametrize(
    ("defense", "more", "words"),
    [
        ("pgdat", {}, "did you mean pgd-at"),
        ("adp", {"eps": "8/255"}, "was attacked under Linf 1/5"),
        ("adp", {"fields": {"clean_acc": "99"}}, "clean_acc is measured"),
        ("adp", {"fields": {"architecure": "x"}}, "did you mean architecture"),
    ],
)
def test_entries_that_cannot_be_made(defense, more, words):
    with pytest.raises(UserError, match=words):
        export(RESULTS, defense, **more)


def test_claims_are_held_against_results(tmp_path):
    honest = export(RESULTS, "pgd-at")
    assert {c.key: c.agrees for c in compare(honest, RESULTS, "pgd-at")} == {"clean_acc": True, "autoattack_acc": True}
    boast = read_model_info(written(tmp_path, {**honest.raw, "autoattack_acc": "90.00"}))
    (clean, attacked) = compare(boast, RESULTS, "pgd-at")
    assert (clean.agrees, attacked.agrees, attacked.claimed) == (True, False, pytest.approx(0.9))
    with pytest.raises(UserError, match="of cifar10, the results are of digits"):
        compare(read_model_info(written(tmp_path, WONG)), RESULTS, "pgd-at", eps="1/5")
    other = read_model_info(written(tmp_path, {**honest.raw, "eps": "8/255"}))
    for eps, words in (
        ("1/5", "the eps differ: the entry is of 8/255, the results are of 1/5"),
        (None, "the eps differ: 8/255 is asked for, pgd-at was attacked under Linf 1/5"),
    ):
        with pytest.raises(UserError, match=words):
            compare(other, RESULTS, "pgd-at", eps=eps)
    with pytest.raises(UserError, match="the eps differ: 8/255 is asked for"):
        compare(honest, RESULTS, "pgd-at", eps="8/255")
    without = read_model_info(written(tmp_path, {**honest.raw, "eps": None}))
    assert [c.agrees for c in compare(without, RESULTS, "pgd-at", eps="1/5")] == [True, True]


def test_robustbench_takes_the_exported_file(tmp_path, monkeypatch, capsys):
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
    from robustbench.utils import (
        ModelInfo,
        get_leaderboard_bibtex,
        get_leaderboard_latex,
        list_available_models,
        update_json,
    )

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model_info" / "cifar10" / "Linf"
    names = {"Wong2020Fast": "pgd-at", "Rice2020Overfitting": "adp"}
    for name, defense in names.items():
        assert purebench_here(
            "model-info", "export", RESULTS, "--defense", defense, "--out", folder / f"{name}.json",
            "--set", "additional_data=false", "architecture=CNN",
        ).returncode == 0  # fmt: skip
    list_available_models("cifar10", "Linf")
    table = capsys.readouterr().out
    assert "**1**</sub> | <sub><sup>**Wong2020Fast**" in table
    assert f"<sub>{worst('adp'):.2%}</sub>" in table
    assert "Rice2020Overfitting" in get_leaderboard_latex("cifar10", "Linf", sort_by="clean_acc")
    assert "ICML" in get_leaderboard_bibtex("cifar10", "Linf")[1]
    update_json(BenchmarkDataset.cifar_10, ThreatModel.Linf, "Wong2020Fast", 0.5, 0.25, 8 / 255)
    info = read_model_info(folder / "Wong2020Fast.json")
    assert (info.eps, info.share("autoattack_acc"), info.raw["architecture"]) == (Fraction(8, 255), 0.25, "CNN")
    deterministic = {k: v for k, v in info.raw.items() if k != "external"}
    assert ModelInfo(**deterministic).clean_acc == "50.0"


def test_the_help_tells_the_exit_code(capsys):
    with pytest.raises(SystemExit):
        main(["model-info", "show", "--help"])
    assert "exit code is 1 if a claim lies outside its interval" in " ".join(capsys.readouterr().out.split())


def test_the_command(tmp_path):
    out = tmp_path / "new" / "pgd-at.json"
    assert purebench_here("model-info", "export", RESULTS, "--defense", "pgd-at", "--out", out).returncode == 0
    shown = purebench_here("model-info", "show", out, "--results", RESULTS, "--defense", "pgd-at")
    assert shown.returncode == 0, shown.stderr
    assert "autoattack_acc: claimed 57.20%, measured 57.20%" in shown.stdout
    assert shown.stdout.rstrip().endswith("agrees")
    boast = written(tmp_path, {**json.loads(out.read_text()), "autoattack_acc": "90.00"})
    shown = purebench_here("model-info", "show", boast, "--results", RESULTS, "--defense", "pgd-at")
    assert shown.returncode == 1
    assert shown.stdout.rstrip().endswith("(autoattack:standard): differs")
    printed = purebench_here("model-info", "export", RESULTS, "--defense", "pgd-at")
    assert printed.stdout == out.read_text()
    for bad in (
        ["show", out, "--defense", "adp"],
        ["show", tmp_path / "no.json"],
        ["export", tmp_path, "--defense", "x"],
    ):
        done = purebench_here("model-info", *bad)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_reported_is_what_the_authors_claim():
    """Not what others found of their network later: AutoAttack has 88.50 on MNIST."""
    assert export(ROOT / "results" / "mnist-defenses", "pgd-at").raw["reported"] == "92.52"
    assert export(ROOT / "results" / "mnist-defenses", "trades").raw["reported"] == "96.07"
    assert "reported" not in export(ROOT / "results" / "mnist-defenses", "mart").raw
