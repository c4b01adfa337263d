"""A row per board, threat and defense; its numbers are those of `summary` and `worst_per_image`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from boards import ROOT
from fake_board import HELD, SEL, deterministic, failed, line, result, stochastic, write

from bench import claims_table, leaderboard, load_results, rank_ranges, summary, worst_per_image
from bench.analysis.claim_files import Claim
from bench.analysis.results import read_results
from bench.spec.cell import digest
from bench.store.audits import VERSION, write_audits
from bench.store.manifest import read_manifest
from defenses.utils.checksums import with_checksum
from defenses.utils.errors import UserError

RESULTS = ROOT / "results"
SETTING = ["dataset", "split", "indices", "norm", "eps", "targets"]


def audited(folder, **states):
    """Audits of defenses: "pass", "not measurable", or the name of a failed check."""
    audits = [
        {"label": name, "fingerprint": {"name": name}, "dataset": "digits", "norm": "Linf", "eps": "1/5",
         "passed": state == "pass", "failed": [] if state in ("pass", "not measurable") else [state], "findings": []}
        for name, state in states.items()
    ]  # fmt: skip
    (folder / "audit").mkdir(parents=True, exist_ok=True)
    text = json.dumps(with_checksum({"schema": 1, "audits": audits}))
    (folder / "audit" / "audit.json").write_text(text)
    return folder


def broken_by_attack(records):
    """Return how many images each attack breaks, of those that are right without it, by defense."""
    attacks = records[~records["attack"].isin(["none", "uniform"]) & ~records["seed_known"]]
    held = attacks["accuracy"].where(attacks["targets"] == "none", 1 - attacks["hits"] / attacks["draws"])
    counts = attacks.assign(broken=(held < 0.5) & (attacks["clean"] > 0.5)).groupby(["defense", "attack", "view"])
    return {defense: of.droplevel(0) for defense, of in counts["broken"].sum().groupby(level=0)}


def check_against_summary(frame, folder):
    results = read_results(folder)
    rows = summary(results)
    worst = rows[rows["attack"] == "worst case"].set_index("defense")
    images = worst_per_image(results)
    assert set(frame["defense"]) == set(worst.index)
    broken = broken_by_attack(load_results(folder))
    for row in frame.itertuples():
        expected = worst.loc[row.defense]
        for end in ("mean", "low", "high"):
            assert getattr(row, f"worst_{end}") == expected[f"robust_{end}"]
            assert getattr(row, f"clean_{end}") == expected[f"clean_{end}"]
        for name in ("rob_m5", "rob_m5_low", "rob_m5_high", "evaluations_per_image", "seconds_per_image"):
            np.testing.assert_equal(getattr(row, name), expected[name])
        for name in ("stochastic", "draws", "n_images", "n_seeds", "budget", "status", *SETTING):
            assert getattr(row, name) == expected[name]
        mine = images[images["defense"] == row.defense]
        assert row.worst_mean == pytest.approx(mine["robust"].mean(), abs=1e-12)
        assert broken[row.defense][row.worst_attack, row.worst_view] == broken[row.defense].max() > 0
    shares = images[images["defense"].isin(frame.dropna(subset="rank_low")["defense"])]
    shares = shares.pivot(index="image", columns="defense", values="robust")
    ranges = rank_ranges(shares).set_index("defense").loc[frame.dropna(subset="rank_low")["defense"]]
    assert frame["rank_low"].dropna().tolist() == ranges["rank_low"].tolist()
    assert frame["rank_high"].dropna().tolist() == ranges["rank_high"].tolist()


@pytest.mark.parametrize("name", ["digits-linf", "digits-audit", "digits-overfitting", "digits-gan"])
def test_every_number_of_a_committed_board_is_that_of_its_tables(name):
    frame = leaderboard(RESULTS / name)
    check_against_summary(frame, RESULTS / name)
    ranked = frame.dropna(subset="rank_low")
    assert (ranked["worst_mean"].diff().dropna() <= 0).all()
    assert ((ranked["rank_low"] >= 1) & (ranked["rank_low"] <= ranked["rank_high"])).all()
    assert (ranked["rank_high"] <= len(ranked)).all()
    assert (frame["board"] == name).all()
    assert (frame["results"] == str(RESULTS / name)).all()
    fingerprints = read_manifest(RESULTS / name)["defenses"]
    assert frame["fingerprint"].tolist() == [digest(fingerprints[label]) for label in frame["defense"]]


def test_the_same_fingerprint_has_the_audits_of_other_folders():
    alone = leaderboard(RESULTS / "digits-linf").set_index("defense")
    assert set(alone["audit"]) == {"none"}
    both = leaderboard(RESULTS / "digits-linf", RESULTS / "digits-audit").set_index(["board", "defense"])
    states = both["audit"]
    assert states["digits-linf"].to_dict() == {
        "pgd-at": "pass",
        "adp": "pass",
        "ebm-mcmc": "pass",
        "undefended": "none",
    }
    assert (states["digits-audit", "broken: quantisation"], states["digits-audit", "adp"]) == ("fail", "pass")
    row = both.loc[("digits-audit", "broken: quantisation")]
    assert row["audit_failed"].startswith("zero gradients; gradient certificate; ")
    assert row["rank_low"] is pd.NA
    assert row["certificate"].startswith("fails: float64 gradient")
    assert both.loc[("digits-linf", "adp"), "certificate"] == "certified"


def test_papers_come_from_cards():
    rows = leaderboard(RESULTS / "digits-linf").set_index("defense")
    assert rows.loc["adp", "url"] == "https://arxiv.org/abs/2106.06041"
    paper = "Adversarial Purification with Score-based Generative Models, ICML 2021"
    assert rows.loc["adp", "paper"] == paper
    assert (rows.loc["undefended", "paper"], rows.loc["undefended", "url"]) == ("", "")


def test_a_failed_audit_of_another_folder_takes_the_rank(tmp_path):
    folder = write(tmp_path / "out", deterministic() + deterministic("other") + deterministic("third"))
    audits = audited(tmp_path / "audits", plain="zero gradients", other="pass", third="not measurable")
    found = leaderboard(folder, audits).set_index("defense")
    assert found["audit"].to_dict() == {"other": "pass", "third": "not measurable", "plain": "fail"}
    assert found["audit_failed"].to_dict() == {"other": "", "third": "", "plain": "zero gradients"}
    assert found["rank_high"].fillna(0).to_dict() == {"other": 2, "third": 2, "plain": 0}
    assert len(leaderboard(audits)) == 0


def test_versions_of_audits_are_told(tmp_path):
    folder = write(tmp_path / "out", deterministic() + deterministic("other") + deterministic("third"))
    old, today = audited(tmp_path / "a", plain="pass", other="pass"), audited(tmp_path / "b", plain="pass")
    file = today / "audit" / "audit.json"
    (audit,) = json.loads(file.read_text())["audits"]
    write_audits(today, [audit | {"version": VERSION}])
    both, one = (leaderboard(folder, *audits).set_index("defense") for audits in ((old, today), (today,)))
    assert both["audit_version"].fillna(-1).to_dict() == {"plain": 0, "other": 0, "third": -1}  # the earliest
    assert one["audit_version"].fillna(-1).to_dict() == {"plain": VERSION, "other": -1, "third": -1}


def test_rows_without_all_verdicts_have_no_rank_and_say_why(tmp_path):
    gap = [result(line("gap", "none"), [1] * 6), failed(line("gap", "apgd"), "error", "boom")]
    nulls = deterministic("calm")[:2]
    folder = write(tmp_path / "out", [*gap, *nulls, *deterministic()])
    found = leaderboard(folder).set_index("defense")
    assert list(found.index) == ["plain", "gap", "calm"]
    assert found["status"].to_dict() == {
        "plain": "ok",
        "gap": "partial: without (all of) apgd (exact)",
        "calm": "no attacks",
    }
    assert found["rank_low"].isna().tolist() == [False, True, True]
    assert found.loc["plain", ["rank_low", "rank_high"]].tolist() == [1, 1]
    assert np.isnan(found.loc["calm", "worst_mean"])
    assert found.loc["calm", "clean_mean"] == pytest.approx(5 / 6)


def test_random_defenses_trainings_and_threats_have_rows_of_their_own(tmp_path):
    more = {"stochastic": True, "draws": HELD, "selection": SEL}
    few = [result(line("far", a, eps="1/3", **more), [15] * 6, [4] * 6) for a in ("none", "apgd")]
    trained = [r for seed in (0, 1) for r in deterministic("at", training_seed=seed)]
    folder = write(tmp_path / "out", stochastic() + trained + deterministic("far", eps="1/10") + few)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["defenses"] |= {f"at (training seed {seed})": {"name": "at", "seed": seed} for seed in (0, 1)}
    del manifest["defenses"]["at"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = leaderboard(folder).set_index(["defense", "eps"])
    assert set(found.index) == {("noisy", "1/5"), ("at", "1/5"), ("far", "1/10"), ("far", "1/3")}
    assert found.loc[("at", "1/5"), "n_seeds"] == 2
    digests = "; ".join(digest({"name": "at", "seed": seed}) for seed in (0, 1))
    assert found.loc[("at", "1/5"), "fingerprint"] == digests
    assert found.loc[("at", "1/5"), "certificate"] == "no certificate"
    assert (
        found.loc[("noisy", "1/5"), "rob_m5"]
        == summary(folder).set_index(["defense", "attack"]).loc[("noisy", "worst case"), "rob_m5"]
    )
    assert np.isnan(found.loc[("at", "1/5"), "rob_m5"])
    assert found.loc[("far", "1/3"), "rank_high"] == 1


def test_the_columns_are_the_same_whatever_there_is(tmp_path):
    full, none = leaderboard(RESULTS / "digits-audit"), leaderboard(audited(tmp_path / "audits"))
    assert full.dtypes.equals(none.dtypes)


def test_the_claim_beside_a_row_is_the_one_that_compares_best(tmp_path):
    sha = "sha256:" + "a" * 64
    folder = write(tmp_path / "out", deterministic() + deterministic("other"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["defenses"]["plain"]["weights"] = {"plain": "a" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    claim = Claim("plain", "A paper", "claim", "digits", "Linf 1/5", 1.0, 1.0, "PGD", "t", "paper", n=10**6)
    elsewhere = replace(claim, dataset="cifar10", network="a larger one", robust=0.5)
    mine, others = replace(claim, weights=(sha,)), replace(claim, kind="re-evaluation", weights=(sha,))
    rows = leaderboard(folder, claims=[others, elsewhere, replace(claim, robust=0.9), mine]).set_index("defense")
    assert rows.loc["plain", ["claim", "claim_robust", "claim_verdict"]].tolist() == ["digits Linf 1/5", 1.0, "refuted"]
    assert rows["claim_evidence"].to_dict() == {"plain": "paper", "other": ""}
    assert rows.loc["other", ["claim", "claim_verdict", "claim_reason"]].tolist() == ["", "", ""]
    found = leaderboard(folder, claims=[elsewhere]).loc[0]
    assert (found["claim"], found["claim_verdict"]) == ("cifar10 Linf 1/5, a larger one", "not comparable")
    assert found["claim_reason"].startswith("another data set (cifar10); ")
    table = claims_table(folder, [others, mine])
    assert table["verdict"].tolist() == ["refuted", "refuted"]


def test_claims_that_come_along_are_read():
    rows = leaderboard(RESULTS / "digits-gan").set_index("defense")
    assert rows.loc["pgd-at", "claim_verdict"] == "not comparable"
    assert rows.loc["undefended", "claim"] == ""


def test_the_confidence_is_that_of_the_ranges():
    usual, narrow = (leaderboard(RESULTS / "digits-gan", confidence=c).set_index("defense") for c in (0.95, 0.3))
    assert (usual["rank_high"] - usual["rank_low"]).sum() > (narrow["rank_high"] - narrow["rank_low"]).sum()
    assert usual["worst_low"].equals(narrow["worst_low"])


def test_no_folder_and_one_without_results_are_refused(tmp_path):
    with pytest.raises(UserError, match="needs the folder of a run"):
        leaderboard()
    with pytest.raises(UserError, match="holds no results"):
        leaderboard(tmp_path)


def test_neither_torch_nor_scikit_learn_is_imported():
    read = {
        "leaderboard": "digits-audit",
        "pairs": "digits-audit",
        "detection": "digits-defenses",
        "load_audits": "digits-audit",
        "load_certificates": "digits-linf",
        "load_runs": "digits-linf",
        "load_corruptions": "corruptions-digits",
        "load_poisoning": "digits-poisoning",
        "load_smoothing": "smooth-digits-denoised",
    }
    calls = "; ".join(f"bench.{name}('results/{folder}')" for name, folder in read.items())
    code = f"import sys, bench; {calls}; print({{'torch', 'sklearn', 'matplotlib'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
