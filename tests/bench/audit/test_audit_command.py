"""`purebench audit`: from a defense, a board and a results folder; and the tables that it flags."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from boards import ROOT
from certificate_checks import KINKED, only_wide_differences

import bench.audit.budgets
from bench.analysis.caveats import failures
from bench.audit.checks import gradients
from bench.audit.findings import not_applicable
from bench.cli.main import main
from bench.report.files import current_table
from bench.report.row_text import marks_of_names
from bench.store.audits import read_audits
from bench.store.manifest import read_manifest

HELPERS = ROOT / "tests" / "helpers"
BOARD = """
dataset = "digits"
indices = "first-8"
block = 8
[threat]
norm = "Linf"
eps = "1/5"
[[defense]]
name = "pgd-at"
[[defense]]
label = "masked"
name = "defenses.zoo.obfuscated:Saturated"
[[attack]]
name = "foolbox:LinfPGD"
params = { steps = 5 }
"""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sizes = {"images": 16, "steps": 15, "queries": 20, "spsa": (4, 8), "planted": 8, "inner": 48, "draws": 8}
    small = replace(bench.audit.budgets.BUDGETS["quick"], **sizes)
    monkeypatch.setitem(bench.audit.budgets.BUDGETS, "quick", small)


def run(*arguments):
    return main(["audit", *map(str, arguments), "--quiet"])


def test_a_defense_by_name(tmp_path, capsys):
    assert run("pgd-at", "--eps", "1/5", "--out", tmp_path) == 0
    assert "pgd-at, Linf 1/5 on digits (16 images, quick budget): passes the audit" in capsys.readouterr().out
    said = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert said["schema"] == 1
    assert said["audits"][0]["passed"] is True
    before = {f: f.read_bytes() for f in (tmp_path / "audit").rglob("*.*")}
    assert run("pgd-at", "--eps", "1/5", "--out", tmp_path) == 0
    assert {f: f.read_bytes() for f in (tmp_path / "audit").rglob("*.*")} == before


def test_an_audit_says_how_far_it_is(tmp_path, capsys, monkeypatch):
    """Count and time, without the checks themselves."""
    monkeypatch.setattr("bench.audit.run._run_check", lambda _, name, __: [not_applicable(name, "as here")])
    readings = iter([0.0, 10.0, 100.0])
    clock = SimpleNamespace(perf_counter=lambda: next(readings, 3700.0))
    monkeypatch.setattr("bench.evaluation.cost.time", clock)
    monkeypatch.setattr("bench.audit.run.time", SimpleNamespace(perf_counter=lambda: 0.0))
    chosen = ["--out", str(tmp_path), "--defense", "undefended", "pgd-at"]
    main(["audit", "quickstart", *chosen])
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "[1/2] undefended: [1/10] logits and no softmax",
        "[1/2] undefended: [2/10] zero gradients, after 0 s",
        "[1/2] undefended: [3/10] gradients agree between seeds, after 10 s",
    ]
    assert lines[10] == "[1/2] undefended: 10 checks in 1 h 02 min"
    assert lines[11].startswith("[2/2] pgd-at: [1/10] ")
    assert len(lines) == 22


def test_a_check_that_is_not_measurable_has_its_own_exit_code(tmp_path, capsys, monkeypatch):
    (tmp_path / "net.py").write_text(KINKED)
    only_wide_differences(monkeypatch)
    monkeypatch.setattr("bench.audit.prepare._check_clean", lambda *_: None)  # its weights are random
    monkeypatch.setattr("bench.audit.run.CHECKS", {"gradient certificate": gradients.certificate})
    assert run(f"{tmp_path}/net.py:made", "--eps", "1/5", "--out", tmp_path / "out") == 3
    assert "no check fails; not measurable: gradient certificate" in capsys.readouterr().out


def test_a_file_of_ones_own_with_probabilities_only_by_force(tmp_path, capsys):
    model = f"{HELPERS / 'audit_models.py'}:Probabilities"
    assert run(model, "--eps", "1/5", "--out", tmp_path) == 2
    assert "returns probabilities; return logits" in capsys.readouterr().err
    assert not (tmp_path / "audit").exists()
    assert run(model, "--eps", "1/5", "--out", tmp_path, "--force") == 1
    assert "logits and no softmax" in read_audits(tmp_path)[0]["failed"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pgd-at",), "eps is missing"),
        (("pgd-att", "--eps", "1/5"), '"pgd-att" is no board, no results folder and no defense'),
        (("pgd-at", "--eps", "3", "--norm", "L0"), "an audit attacks in Linf, L2, L1, not in L0"),
        (("pgd-at", "--eps", "300"), "eps is larger than any image: under Linf, 1 reaches them all"),
        (("pgd-at", "--eps", "1/5", "--budget", "fulll"), 'unknown budget "fulll"'),
        (("pgd-at", "--eps", "1/5", "--transfer-from", "nobody"), 'unknown defense "nobody"'),
        (("pgd-at", "--eps", "1/5", "--defense", "adp"), "--defense picks from a board"),
        (("quickstart", "--norm", "L2"), "--norm without --eps"),
        (("quickstart", "--dataset", "mnist"), "--dataset is for a single defense"),
        (("quickstart", "--defense", "nobody"), 'unknown defense "nobody"'),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, says):
    assert run(*arguments, "--out", tmp_path) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_tables_flag_what_fails(tmp_path, capsys):
    board, folder = tmp_path / "small.toml", tmp_path / "results"
    board.write_text(BOARD)
    assert main(["run", str(board), "--out", str(folder), "--workers", "0", "--quiet"]) == 0
    assert "‡" not in current_table(folder)
    assert run(board, "--out", folder, "--defense", "masked") == 1
    table = current_table(folder, "markdown")
    assert "| masked ‡ |" in table
    assert "pgd-at ‡" not in table
    assert "‡ masked fails the audit, so its numbers have no rank: zero gradients" in table
    assert "zero gradients; " in (folder / "tables.csv").read_text()
    # The folder knows its defenses, threat and images.
    assert run(folder, "--defense", "masked", "pgd-at") == 1
    assert [a["label"] for a in read_audits(folder)] == ["masked", "pgd-at"]
    assert set(failures(folder, read_manifest(folder))) == {"masked"}
    capsys.readouterr()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_takes_probabilities_by_force_and_flags_them(tmp_path, capsys, workers):
    board, folder, other = tmp_path / "small.toml", tmp_path / "results", tmp_path / "other"
    board.write_text(BOARD.replace("defenses.zoo.obfuscated:Saturated", f"{HELPERS / 'audit_models.py'}:Probabilities"))

    def go(out, *more):
        return main(["run", str(board), "--out", str(out), "--workers", workers, "--quiet", *more])

    assert go(folder) == 2
    error = capsys.readouterr().err
    assert "returns probabilities" in error
    assert "--force" in error
    assert error.count("\n") == 1
    assert not (folder / "parts").exists()
    assert go(folder, "--force", "--attack", "none") == 0
    assert go(folder) == 0  # the folder knows what was insisted on
    table = current_table(folder, "markdown")
    assert "| masked ‡ |" in table
    assert "pgd-at ‡" not in table
    assert "no rank: logits and no softmax (it returns probabilities, and was run with --force)" in table
    assert go(other) == 2
    (folder / "audit").mkdir()
    manifest = read_manifest(folder)
    said = {"fingerprint": manifest["defenses"]["masked"], "failed": ["logits and no softmax", "binarisation"]}
    (folder / "audit" / "audit.json").write_text(json.dumps({"schema": 1, "audits": [said]}))
    assert failures(folder, manifest) == {"masked": ("logits and no softmax", "binarisation")}


def test_another_defense_of_that_name_is_not_flagged(tmp_path):
    (tmp_path / "audit").mkdir()
    said = {"schema": 1, "audits": [{"fingerprint": {"name": "x", "weights": "1"}, "failed": ["binarisation"]}]}
    (tmp_path / "audit" / "audit.json").write_text(json.dumps(said))
    assert failures(tmp_path, {"defenses": {"x": {"name": "x", "weights": 1}}}) == {"x": ("binarisation",)}
    assert failures(tmp_path, {"defenses": {"x": {"name": "x", "weights": "2"}}}) == {}


def test_the_mean_over_trainings_is_marked_with_any_of_them():
    assert marks_of_names({"x (training seed 1)": ("binarisation",)}, {"y"}) == {
        "x": " ‡",
        "x (training seed 1)": " ‡",
        "y": " §",
    }
    assert marks_of_names({"x": ("binarisation",)}, {"x"}) == {"x": " ‡ §"}


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("adp", ["--indices", "first-3"], "an audit of 3 images can tell nothing"),
        (
            f"{HELPERS / 'audit_models.py'}:OffByOne",
            [],
            "clean accuracy 0.0% is no better than a guess among 10 classes",
        ),
        (f"{HELPERS / 'audit_models.py'}:Cut", [], "declares exact gradients and has none"),
    ],
)
def test_what_no_audit_can_judge_is_refused(name, more, words, tmp_path, capsys):
    assert main(["audit", name, "--eps", "1/5", "--out", str(tmp_path / "out"), *more]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
