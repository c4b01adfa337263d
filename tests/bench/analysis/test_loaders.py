"""Audits, certificates and runs as frames; every results folder has one function that reads it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from boards import ROOT
from fake_board import deterministic, write

import bench
from bench import detection, load_audits, load_cells, load_certificates, load_runs
from bench.evaluation.certificates.stored import add
from bench.spec.cell import digest
from bench.store.audits import read_audits
from bench.store.kinds import LOADERS, kind_of
from bench.store.manifest import read_manifest
from defenses.utils.errors import UserError

RESULTS = ROOT / "results"
READ_BY = {
    **dict.fromkeys(("digits-linf", "digits-audit", "digits-defenses", "digits-gan"), "load_results"),
    **dict.fromkeys(
        ("adaptive-cost", "adaptive-cost-mnist", "digits-overfitting", "leaky-energy", "mnist-defenses"), "load_results"
    ),
    **dict.fromkeys(("cifar10-linf", "cifar10-purifiers", "digits-surrogates", "reproduction-digits"), "load_results"),
    **dict.fromkeys(("corruptions-cifar10", "corruptions-digits"), "load_corruptions"),
    "digits-poisoning": "load_poisoning",
    **dict.fromkeys(("smooth-digits-denoised", "smooth-digits-smoothing"), "load_smoothing"),
}
KINDS = ["load_results", "load_corruptions", "load_smoothing", "load_poisoning"]


def test_every_committed_folder_is_listed():
    words = ("git", "ls-files", "results/*/tables.md")
    committed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {Path(name).parent.name for name in committed} == set(READ_BY)


@pytest.mark.parametrize("name", READ_BY)
def test_a_committed_folder_is_read_by_one_function_which_the_others_name(name):
    for loader in KINDS:
        if loader == READ_BY[name]:
            assert len(getattr(bench, loader)(RESULTS / name)) > 0
        else:
            with pytest.raises(UserError, match=rf"read it with bench\.{READ_BY[name]}$") as error:
                getattr(bench, loader)(RESULTS / name)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["corruptions-digits", "digits-poisoning", "smooth-digits-denoised"])
@pytest.mark.parametrize("loader", ["load_draws", "summary", "pairs", "leaderboard", "detection", "load_audits"])
def test_what_reads_boards_names_the_function_for_other_folders(name, loader):
    with pytest.raises(UserError, match=rf"read it with bench\.{READ_BY[name]}$"):
        getattr(bench, loader)(RESULTS / name)


@pytest.mark.parametrize("loader", [*KINDS, "load_audits", "load_certificates", "load_runs", "leaderboard"])
def test_an_empty_folder_and_a_missing_one_are_refused(loader, tmp_path):
    for folder in (tmp_path, tmp_path / "nix"):
        with pytest.raises(UserError) as error:
            getattr(bench, loader)(folder)
        said = str(error.value)
        assert said.startswith(str(folder))
        assert re.search("(holds|has) no (results|certificates)", said.removeprefix(str(folder)))
        assert "\n" not in said


def test_other_lines_of_json_are_no_results(tmp_path):
    (tmp_path / "notes.jsonl").write_text('["about"]\n')
    (tmp_path / "log.jsonl").write_text('{"about": {"label": "a"}}\n')
    assert kind_of(tmp_path) is None


def test_every_kind_has_a_public_function():
    assert set(LOADERS.values()) <= set(dir(bench))


def test_the_tables_of_the_tracks_are_these_frames():
    for name, loader in READ_BY.items():
        if loader == "load_results":
            continue
        frame = getattr(bench, loader)(RESULTS / name)
        table = pd.read_csv(RESULTS / name / "tables.csv", dtype={"severity": str}, keep_default_na=False)
        assert list(frame) == list(table)
        for column in frame:
            if frame[column].dtype == "str":
                assert frame[column].tolist() == table[column].astype(str).tolist()
            else:
                assert frame[column].tolist() == pytest.approx(table[column].astype(float).tolist())


def test_audits_have_a_row_per_check():
    frame = load_audits(RESULTS / "digits-audit", RESULTS / "digits-linf")  # the latter has none
    stored = read_audits(RESULTS / "digits-audit")
    assert len(frame) == sum(len(audit["findings"]) for audit in stored)
    broken = frame[frame["defense"] == "broken: quantisation"]
    assert broken[broken["status"] == "fail"]["check"].tolist() == stored[2]["failed"]
    assert set(broken["audit"]) == {"fail"}
    assert set(broken["fingerprint"]) == {digest(stored[2]["fingerprint"])}
    row = frame.set_index(["defense", "check"]).loc[("pgd-at", "zero gradients")]
    assert (row["status"], row["n_images"], row["eps"]) == ("pass", 200, "1/5")
    assert row["numbers"]["limit"] == 0.01
    assert any(len(images) for images in frame["images"])


def test_certificates_have_a_row_per_measurement(tmp_path):
    frame = load_certificates(RESULTS / "digits-linf")
    titles = {digest(f): title for title, f in read_manifest(RESULTS / "digits-linf")["defenses"].items()}
    assert frame.groupby("defense").size().to_dict() == {"undefended": 2, "pgd-at": 2, "adp": 6, "ebm-mcmc": 5}
    assert [titles[key] for key in frame["fingerprint"]] == frame["defense"].tolist()
    assert set(frame["state"]) == {"passed"}
    least = frame[frame["least"]]
    assert (least["value"] >= least["limit"]).all()

    folder = write(tmp_path / "out", deterministic())
    add(folder, {"unknown": {"passed": False, "error": "its logits have no gradient"}})
    row = load_certificates(folder).set_index("fingerprint").loc["unknown"]
    assert (row["defense"], row["state"], row["check"]) == ("", "failed", "")
    assert row["note"] == "its logits have no gradient"


def test_runs_tell_command_code_time_and_machine():
    frame = load_runs(RESULTS / "digits-linf")
    assert frame["command"].tolist()[-1] == "purebench run digits-linf --workers 0"
    assert frame["commit"].str.len().tolist() == [40] * len(frame)
    assert not frame["dirty"].any()
    assert (frame["finished"] > frame["started"]).all()
    assert frame.iloc[-1]["versions"]["torch"] == "2.15.0"
    assert set(load_cells(RESULTS / "digits-linf")["run"].dropna()) <= set(frame["run"])
    for name in READ_BY:
        assert len(load_runs(RESULTS / name)) > 0


def test_a_run_that_did_not_end_and_one_of_no_repository_have_gaps(tmp_path):
    folder = write(tmp_path / "out", deterministic())
    runs = [{"id": "a", "started": "2026-01-01T00:00:00Z", "git": None, "command": "(from Python)"}]
    (folder / "manifest.json").write_text(json.dumps({"defenses": {}, "runs": runs}))
    (row,) = load_runs(folder).itertuples()
    assert row.finished is pd.NaT
    assert row.dirty is pd.NA
    assert (row.commit, row.processor, row.versions) == ("", "", {})
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        load_runs(folder)


def test_columns_and_types_are_the_same_whatever_there_is(tmp_path):
    empty = write(tmp_path / "out", deterministic())
    (empty / "certificates.json").unlink()
    for loader, full in (
        (load_audits, "digits-audit"),
        (load_certificates, "digits-linf"),
        (load_runs, "digits-linf"),
    ):
        nothing = loader(empty)
        assert len(nothing) == 0
        assert nothing.dtypes.equals(loader(RESULTS / full).dtypes)


def test_detectors_have_fixed_columns():
    kinds = detection(RESULTS / "digits-defenses").dtypes.astype(str)
    shares = ("right_accepted", "clean_refused", "right_or_refused", "auroc", "tpr_at_1", "tpr_at_5")
    assert {kinds[f"{share}{end}"] for share in shares for end in ("", "_low", "_high")} == {"float64"}
    assert (kinds["n_images"], kinds["training_seed"], kinds["view"]) == ("int64", "int64", "str")


def test_folders_of_audits_alone_are_read_by_load_audits(tmp_path):
    import shutil

    shutil.copytree(RESULTS / "digits-audit" / "audit", tmp_path / "audit")
    assert len(load_audits(tmp_path)) == len(load_audits(RESULTS / "digits-audit"))
    with pytest.raises(UserError, match=r"holds audits; read it with bench\.load_audits"):
        bench.load_results(tmp_path)
    with pytest.raises(UserError, match="needs a results folder"):
        load_audits()
