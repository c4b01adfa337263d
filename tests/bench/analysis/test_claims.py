"""Verdicts on published claims: their borders, what cannot be compared, the table of a results folder."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from boards import ROOT
from fake_board import deterministic, failed, line, result, write

from bench.analysis.claim_files import Claim
from bench.analysis.claims import claims_table, judge_claim, measured_rows
from bench.analysis.reproduction import reproduction
from bench.analysis.weights_used import WeightsUsed, weights_used
from bench.stats.proportions import wilson
from defenses.utils.checksums import with_checksum

SHA = "sha256:" + "a" * 64
CLAIM = Claim(
    "plain", "A paper", "claim", "digits", "Linf 1/5", 0.9, 0.6, "PGD", "table 1", "paper", weights=(SHA,), n=1000
)
LOW, HIGH = (float(end) for end in wilson(600, 1000))
ROW = {
    "dataset": "digits", "norm": "Linf", "eps": "1/5", "targets": "none", "status": "ok",
    "clean_mean": 0.9, "clean_low": 0.88, "clean_high": 0.92, "robust_mean": 0.6, "robust_low": 0.58,
    "robust_high": 0.62, "weights": WeightsUsed((frozenset({SHA, "sha256:" + "b" * 64}),)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.58, 0.62, "consistent"),
        (0.1, LOW, "consistent"),
        (0.1, np.nextafter(LOW, 0), "refuted"),
        (HIGH, 0.9, "consistent"),
        (np.nextafter(HIGH, 1), 0.9, "not reached"),
        (0.0, 1.0, "consistent"),
        (0.0, 0.0, "refuted"),
        (1.0, 1.0, "not reached"),
    ],
)
def test_a_verdict_takes_the_sampling_error_of_both_sides(low, high, word):
    verdict = judge_claim(CLAIM, ROW | {"robust_low": low, "robust_high": high})
    assert (verdict.word, verdict.note) == (word, "")


def test_the_same_numbers_refute_a_claim_on_many_images_and_not_one_on_few():
    row = ROW | {"robust_low": 0.45, "robust_high": 0.55}
    assert judge_claim(CLAIM, row).word == "refuted"
    assert judge_claim(replace(CLAIM, n=50), row).word == "consistent"


@pytest.mark.parametrize(
    ("claim", "row", "reason"),
    [
        ({"dataset": "cifar10"}, {}, "another data set (cifar10)"),
        ({"threat": "L2 1/5"}, {}, "another norm (L2 1/5)"),
        ({"threat": "Linf 8/255"}, {}, "another eps (8/255)"),
        ({"threat": ""}, {}, "the claim has no ball of a norm"),
        ({"weights": ("sha256:" + "c" * 64,)}, {}, "another network"),
        ({"weights": (SHA, "sha256:" + "c" * 64)}, {}, "another network"),
        ({"weights": ()}, {}, "the claim's weights are unknown"),
        ({"weights": ()}, {"weights": WeightsUsed(own=True)}, "another network"),
        ({}, {"weights": WeightsUsed()}, "the measured weights have no known name"),
        ({}, {"weights": WeightsUsed((frozenset({SHA}), frozenset({"sha256:x"})))}, "another network"),
        ({"n": None}, {}, "the claim does not tell its number of images"),
        ({"robust": None}, {}, "the claim has no robust accuracy"),
        ({"aggregation": "worst of 10"}, {}, "the claim counts the worst of 10 of an image's draws"),
        ({"aggregation": "certificate"}, {}, "the claim is a certificate"),
        ({}, {"targets": "next"}, "the attacks have targets"),
        ({}, {"status": "partial: 5 of 6 images"}, "the worst case is incomplete (partial: 5 of 6 images)"),
    ],
)
def test_what_cannot_be_compared_says_why(claim, row, reason):
    verdict = judge_claim(replace(CLAIM, **claim), ROW | row | {"robust_low": 0.0, "robust_high": 0.01})
    assert (verdict.word, verdict.reason) == ("not comparable", reason)


def test_every_reason_is_told():
    verdict = judge_claim(replace(CLAIM, dataset="cifar10", threat="L2 1/2", weights=()), ROW)
    assert verdict.reason == "another data set (cifar10); another norm (L2 1/2); the claim's weights are unknown"


def test_another_clean_accuracy_means_another_model():
    row = ROW | {"clean_mean": 0.8, "clean_low": 0.78, "clean_high": 0.82}
    assert judge_claim(CLAIM, row).note == "another model: clean accuracy 90.00% claimed, 80.00% measured"
    assert judge_claim(CLAIM, row).word == "consistent"
    assert judge_claim(replace(CLAIM, clean=None), row).note == ""
    edge = float(wilson(900, 1000)[0])
    assert judge_claim(CLAIM, row | {"clean_high": edge}).note == ""
    assert judge_claim(CLAIM, row | {"clean_high": np.nextafter(edge, 0)}).note


def folder_of(path, fingerprint, results=None):
    """A results folder of the defense "plain": clean 5 of 6, worst case 2 of 6."""
    write(path, results or deterministic())
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["defenses"]["plain"] = fingerprint
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_claims_on_a_results_folder(tmp_path):
    folder = folder_of(tmp_path, {"name": "plain", "weights": {"plain": "a" * 64}})
    high = replace(CLAIM, robust=0.99, clean=None)
    other = replace(CLAIM, defense="another", weights=())
    frame = claims_table(folder, [high, replace(high, robust=0.2), replace(high, weights=()), other])
    assert list(frame["verdict"]) == ["refuted", "consistent", "not comparable"]
    assert list(frame["measured_robust"]) == [2 / 6] * 3
    assert (frame["measured_n"].iloc[0], frame["claimed_n"].iloc[0]) == (6, 1000)
    assert frame["claimed_low"].iloc[0] == float(wilson(990, 1000)[0])
    assert list(frame["defense"]) == ["plain"] * 3


def test_claims_of_published_weights_are_found_under_any_name(tmp_path):
    zoo = {"name": "robustbench:Wong2020Fast", "dataset": "cifar10", "threat_model": "Linf", "weights": {"x.pt": "0"}}
    folder = folder_of(tmp_path, zoo)
    claim = replace(CLAIM, defense="fast-at", robust=0.99, weights=("robustbench:cifar10/Linf/Wong2020Fast",))
    (row,) = claims_table([folder], [claim]).to_dict("records")
    assert (row["verdict"], row["note"]) == ("refuted", "")
    l2 = replace(claim, weights=("robustbench:cifar10/L2/Wong2020Fast",))
    assert claims_table(folder, [l2]).empty


URL = "https://arxiv.org/abs/2106.06041"  # of the preset adp-paper


def protocols(seed=0):
    """Clean 5 of 6; adp-paper leaves 5, with clean images 4, standard 2; an attack of no preset leaves 1."""
    more = {"training_seed": seed}
    return [
        result(line("plain", "none", **more), [1, 1, 1, 1, 1, 0], size=0),
        result(line("plain", "transfer", view="blind", **more), [1, 1, 1, 1, 1, 0]),
        result(line("plain", "adp-paper: PGD", **more), [1, 1, 1, 0, 1, 1]),
        result(line("plain", "standard: apgd", **more), [1, 1 - seed, 0, 0, 0, 1]),
        result(line("plain", "bpda", **more), [1, 0, 0, 0, 0, 0]),
    ]


def test_points_that_the_preset_of_a_publication_leaves_above_standard(tmp_path):
    folder = folder_of(tmp_path, {"name": "plain", "weights": {"plain": "b" * 64}}, protocols())
    own = replace(CLAIM, dataset="cifar10", threat="Linf 8/255", url=URL, like="exact")
    others = [
        {"url": ""},
        {"attack": "APGD"},
        {"threat": "L2 1/2"},
        {"kind": "re-evaluation"},
        {"aggregation": "worst of 2"},
    ]
    claims = [own, replace(own, dataset="cifar100"), *(replace(own, **other) for other in others)]
    (row,) = reproduction(folder, claims).to_dict("records")
    ends = [100 * row[f"weakness{end}"] for end in ("", "_low", "_high")]
    left = claims_table(folder, claims)[["points_left", "points_left_low", "points_left_high"]].to_numpy()
    assert ends[0] == pytest.approx(100 / 3)
    assert left[:2].tolist() == [ends, ends]
    assert len(left) == 7
    assert np.isnan(left[2:]).all()


def test_points_of_several_trainings_are_their_mean(tmp_path):
    write(tmp_path, [r for seed in (0, 1) for r in protocols(seed)])
    prints = {f"plain (training seed {s})": {"name": "plain", "weights": {"plain": "a" * 64}} for s in (0, 1)}
    (tmp_path / "manifest.json").write_text(json.dumps({"defenses": prints}))
    claim = replace(CLAIM, dataset="cifar10", threat="Linf 8/255", url=URL)
    (found,) = claims_table(tmp_path, [claim]).to_dict("records")
    assert found["points_left"] == pytest.approx(100 * reproduction(tmp_path, [claim])["weakness"].mean())
    assert found["points_left"] == pytest.approx(100 * (2 + 3) / 12)
    assert math.isnan(found["points_left_low"])


@pytest.mark.parametrize("like", ["exact", "bpda", "apgd", ""])
def test_attacks_of_the_same_mode_are_no_protocol(tmp_path, like):
    results = deterministic()
    results[3] = result(line("plain", "square", view="bpda"), [1, 0, 1, 0, 1, 1], size=0.1)
    folder = folder_of(tmp_path, {"name": "plain", "weights": {"plain": "b" * 64}}, results)
    assert claims_table(folder, [replace(CLAIM, like=like)])["points_left"].isna().all()


def test_an_incomplete_worst_case_leaves_no_points(tmp_path):
    results = deterministic()
    results[3] = failed(line("plain", "square"), "error", "out of memory")
    folder = folder_of(tmp_path, {"name": "plain", "weights": {"plain": "a" * 64}}, results)
    (row,) = claims_table(folder, [replace(CLAIM, like="exact")]).to_dict("records")
    assert row["verdict"] == "not comparable"
    assert "the worst case is incomplete" in row["reason"]
    assert math.isnan(row["points_left"])


@pytest.mark.parametrize("board", ["digits-linf", "mnist-defenses"])
def test_networks_of_ours_refute_nobody(board):
    frame = claims_table(ROOT / "results" / board)
    assert set(frame["verdict"]) == {"not comparable"}
    assert frame["reason"].str.contains("another network").all()
    ours = frame[(frame["defense"] == "adp") & (frame["attack"] == "BPDA+EOT")]
    assert len(ours)
    assert ours["points_left"].isna().all()


def test_weights_by_their_published_names(tmp_path, monkeypatch):
    sha = "e" * 64
    side = {"sha256": sha, "network": {"kind": "", "args": {}}, "recipe": {"imported": {"file_sha256": "d" * 64}}}
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "far.json").write_text(json.dumps(with_checksum(side)))
    monkeypatch.setenv("PUREBENCH_WEIGHTS", str(tmp_path))
    fingerprint = {"name": "undefended", "weights": {"far": sha}}
    used = weights_used(fingerprint, "digits")
    assert used == WeightsUsed((frozenset({f"sha256:{sha}", "sha256:" + "d" * 64}),))
    assert used.are(("sha256:" + "d" * 64,))
    assert weights_used({"name": "undefended", "weights": {"far": "f" * 64}}, "digits").own
    beside = fingerprint | {"around": [{"role": "detector", "name": "x", "weights": {"y": "0" * 64}}]}
    assert not weights_used(beside, "digits").are((f"sha256:{sha}",))
    assert weights_used({"name": "own.py:Net", "state": "0", "parameters": {}}, "digits") == WeightsUsed()


def test_a_mean_over_trainings_has_no_weights_of_a_claim(tmp_path):
    rows = [r for seed in (0, 1) for r in deterministic(training_seed=seed)]
    write(tmp_path, rows)
    manifest = {f"plain (training seed {s})": {"name": "plain", "weights": {"plain": "a" * 64}} for s in (0, 1)}
    (tmp_path / "manifest.json").write_text(json.dumps({"defenses": manifest}))
    frame = measured_rows(tmp_path)
    assert isinstance(frame, pd.DataFrame)
    assert set(frame["weights"]) == {WeightsUsed(own=True)}
    assert set(claims_table(tmp_path, [CLAIM])["reason"]) == {"another network"}


def test_a_composition_with_a_detector_is_another_defense(tmp_path):
    around = [{"role": "detector", "name": "lid", "weights": {}}]
    folder = folder_of(tmp_path, {"name": "trades", "weights": {"trades": "a" * 64}, "around": around})
    assert claims_table(folder, [replace(CLAIM, defense="trades", weights=())]).empty
