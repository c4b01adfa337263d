"""Every aggregation against counts done by hand, and what is missing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fake_board import HELD, SEL, deterministic, failed, line, result, row, stochastic, write

from bench import load_cells, load_results, summary
from bench.summarise import WORST
from bench.tables import full_table, pivot, write_tables
from defenses.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "board", deterministic() + stochastic())


# aggregates


def test_deterministic_rows(folder):
    apgd = row(summary(folder), "plain", "apgd")
    assert (apgd.n_images, apgd.planned, apgd.coverage, apgd.draws) == (6, 6, 1, 1)
    assert (apgd.clean_mean, apgd.robust_mean) == (pytest.approx(5 / 6), 0.5)
    assert (apgd.asr_newly_wrong, apgd.asr_originally_correct, apgd.asr) == (2, 5, 0.4)
    assert apgd.median_perturbation == math.inf  # 2 of 5 fall
    assert (apgd.majority, apgd.mean_logit) == (0.5, 0.5)
    assert math.isnan(apgd.rob_m5)
    assert (apgd.evaluations_per_image, apgd.queries_per_image, apgd.seconds_per_image) == (20, 10, 0.5)
    assert apgd.robust_low == pytest.approx(0.1876, abs=1e-4)
    assert apgd.robust_high == pytest.approx(0.8124, abs=1e-4)


def test_deterministic_worst_is_the_intersection_with_clean(folder):
    worst = row(summary(folder), "plain", WORST)
    # Image 5 is robust to Square by accident, but the clean image is wrong.
    assert worst.robust_mean == pytest.approx(2 / 6)
    assert (worst.asr_newly_wrong, worst.asr_originally_correct) == (3, 5)
    assert worst.median_perturbation == pytest.approx(0.2)
    assert worst.evaluations_per_image == 40
    assert worst.robust_mean == pytest.approx(worst.clean_mean * (1 - worst.asr))


def test_of_equal_attacks_the_smaller_success_gives_the_size(tmp_path):
    results = [
        result(line("plain", "none"), [1] * 6, size=0),
        result(line("plain", "apgd"), [0, 0, 0, 0, 0, 1], size=0.2),
        result(line("plain", "fmn"), [0, 0, 0, 0, 1, 1], size=0.1),
    ]
    worst = row(summary(write(tmp_path, results)), "plain", WORST)
    assert (worst.robust_mean, worst.median_perturbation) == (pytest.approx(1 / 6), pytest.approx(0.1))


def test_an_image_with_two_verdicts_is_refused(tmp_path):
    twice = result(line("plain", "apgd"), [1] * 6)
    twice.records["index"][1] = 0
    with pytest.raises(UserError, match=r"plain, apgd \(exact\): image 0 has several verdicts"):
        summary(write(tmp_path, [twice]))


def test_stochastic_rows(folder):
    square = row(summary(folder), "noisy", "square")
    right = np.array([12, 3, 9, 6, 8, 0])
    assert square.robust_mean == pytest.approx(right.mean() / 15)
    assert square.rob_m5 == pytest.approx(np.mean([math.comb(int(c), 5) / math.comb(15, 5) for c in right]))
    assert square.rob_m15 == 0
    assert square.majority == pytest.approx(3 / 6)
    clean = np.array([15, 15, 15, 15, 12, 3]) / 15
    # Draw by draw: in the records of the fixture the first draws are the right ones.
    assert square.asr_newly_wrong == pytest.approx(np.maximum(clean - right / 15, 0).sum())
    assert square.asr_originally_correct == pytest.approx(clean.sum())


def test_stochastic_worst_is_chosen_on_selection_and_counted_on_held_out(folder):
    worst = row(summary(folder), "noisy", WORST)
    # Selection of clean, apgd, square: (4 4 3) (4 1 2) (4 2 1) (4 0 1) (4 3 3) (1 1 0). The tie goes to apgd.
    chosen = np.array([12, 9, 9, 0, 9, 0])
    assert worst.robust_mean == pytest.approx(chosen.mean() / 15)
    assert worst.majority == pytest.approx(4 / 6)
    assert worst.n_images == 6


def test_null_and_clean_have_rows_with_the_same_aggregations(folder):
    frame = summary(folder)
    null, clean = row(frame, "noisy", "uniform"), row(frame, "noisy", "none")
    assert null.robust_mean == pytest.approx((15 * 3 + 12 * 2 + 3) / 90)
    assert clean.robust_mean == clean.clean_mean
    assert clean.rob_m5 > null.rob_m5 > 0
    assert math.isnan(clean.asr)
    assert not math.isnan(null.asr)


def test_mean_logit_can_differ_from_the_majority(tmp_path):
    r = result(line("noisy", "apgd", stochastic=True, draws=HELD), [7] * 6, [2] * 6)
    logits = np.zeros((6 * (HELD + SEL), 3), np.float16)
    logits[:, 1] = 1
    logits[r.draws["pred"] == 0, 0] = 9
    r.draws["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), 3)
    found = row(summary(write(tmp_path, [r])), "noisy", "apgd")
    assert (found.majority, found.mean_logit) == (0, 1)


def test_the_mean_logit_of_one_draw_is_its_prediction(tmp_path):
    r = result(line("plain", "apgd"), [1, 1, 1, 0, 0, 0])
    r.draws["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(18, np.float16)), 3)  # rounded to a tie
    assert row(summary(write(tmp_path, [r])), "plain", "apgd").mean_logit == 0.5


def test_partial_logits_and_refusals(tmp_path):
    planned = line("noisy", "apgd", stochastic=True, draws=HELD)
    r = result(planned, [8] * 6, [2] * 6, rejected=np.full(6, 7, np.int32))
    r.draws["rejected"] = r.draws["pred"] != 0
    r.draws["classes"] = r.draws["logits"]  # only the largest logits are stored
    found = row(summary(write(tmp_path, [r])), "noisy", "apgd")
    assert math.isnan(found.mean_logit)
    assert found.rejected_mean == pytest.approx(7 / 15)
    assert found.majority == 1
    assert load_results(tmp_path).success.tolist() == pytest.approx([0] * 6, abs=1e-12)


def targeted():
    """Five wrong predictions of `apgd` that miss the target, three hits of `square`."""
    more = {"targets": "next", "stochastic": True, "draws": HELD, "selection": SEL}
    aim = {"target": np.ones(6, np.int16)}
    none = np.zeros(6, np.int32)
    hits, hits_sel = np.array([9, 9, 9, 0, 0, 0], np.int32), np.array([4, 4, 4, 0, 0, 0], np.int32)
    return [
        result(line("noisy", "none", **more), [15] * 5 + [0], [4] * 5 + [0], size=0, wrong=2, **aim),
        result(line("noisy", "apgd", **more), [0] * 5 + [15], [0] * 5 + [4], wrong=2, hits=none, hits_sel=none, **aim),
        result(
            line("noisy", "square", **more), [6] * 3 + [15] * 3, [0] * 3 + [4] * 3, hits=hits, hits_sel=hits_sel, **aim
        ),
    ]


def test_under_a_targeted_threat_only_the_target_is_a_win(tmp_path):
    frame = summary(write(tmp_path, targeted()))
    clean, apgd, square, worst = (row(frame, "noisy", name) for name in ("none", "apgd", "square", WORST))
    assert (clean.clean_mean, clean.robust_mean) == (pytest.approx(5 / 6), 1)
    assert (apgd.robust_mean, apgd.rob_m5, apgd.asr) == (1, 1, 0)
    assert square.robust_mean == worst.robust_mean == pytest.approx((3 * 6 / 15 + 3) / 6)
    assert worst.asr_newly_wrong == pytest.approx(3 * 9 / 15)
    note = "targeted: robust = draws that do not give the target"
    for table in (pivot(frame), full_table(frame)):
        assert note in table.footnotes
    assert pivot(frame).rows[0][1] == "83.33 [43.65, 96.99]"  # the clean column keeps the accuracy
    assert note not in pivot(summary(write(tmp_path / "b", deterministic()))).footnotes


def test_records_without_hits_of_selection_draws_are_read(tmp_path):
    results = targeted()
    for r in results[:2]:
        del r.records["hits_sel"]
    assert load_results(write(tmp_path, results))["hits_sel"].tolist() == [0] * 12 + [4] * 3 + [0] * 3


# what is missing


def test_errors_are_missing_and_never_robust(tmp_path):
    results = [*deterministic()[:3], failed(line("plain", "square"), "error", "RuntimeError: boom")]
    results += deterministic("other")
    frame = summary(write(tmp_path, results))
    square = row(frame, "plain", "square")
    assert square.status == "error: RuntimeError: boom"
    assert (square.n_images, square.coverage) == (0, 0)
    assert math.isnan(square.robust_mean)
    worst = row(frame, "plain", WORST)
    assert worst.status == "partial: without (all of) square (exact)"
    assert pd.isna(worst["rank"])
    assert row(frame, "other", WORST)["rank"] == 1
    assert load_cells(tmp_path).status.value_counts()["error"] == 1


def test_attacks_that_nobody_supports_cost_no_rank(tmp_path):
    def both(status):
        other = failed(line("other", "ead"), *status) if status else result(line("other", "ead"), [1] * 6)
        return [failed(line("plain", "ead"), "unsupported", "needs L1"), other]

    everywhere = write(tmp_path / "a", deterministic() + deterministic("other") + both(("unsupported", "needs L1")))
    frame = summary(everywhere)
    assert row(frame, "plain", "ead").status == "unsupported: needs L1"
    assert frame[frame.attack == WORST]["rank"].tolist() == [1, 1]
    # Nobody has run the others yet: what one defense lacks is then no gap of its own.
    lone = deterministic() + both(("unsupported", "needs L1"))[:1]
    frame = summary(write(tmp_path / "c", lone, [*(r.line for r in lone), line("other", "ead")]))
    assert frame[frame.attack == WORST].status.tolist() == ["ok", "not run"]
    here = write(tmp_path / "b", deterministic() + deterministic("other") + both(None))
    ranks = summary(here).set_index(["defense", "attack"])["rank"]
    assert pd.isna(ranks["plain", WORST])
    assert ranks["other", WORST] == 1


def test_blocks_and_images_without_verdict_show_as_coverage(tmp_path):
    two = {"block": 6, "images": 6, "indices": "first-12"}
    one = {"indices": "first-12"}
    problems = ["", "the attack left the Linf ball: 0.3 > 0.2", "", "", "", ""]
    results = [
        result(line("plain", "none", **one), [1] * 6, size=0),
        result(line("plain", "none", **two), [1] * 6, size=0),
        result(line("plain", "apgd", **one), [0] * 6, problems=problems),
        result(line("plain", "apgd", **two), [1] * 6),
        result(line("plain", "square", **one), [0] * 6),
    ]
    plan = [r.line for r in results] + [line("plain", "square", **two)]
    frame = summary(write(tmp_path, results, plan))
    apgd, square = row(frame, "plain", "apgd"), row(frame, "plain", "square")
    assert (apgd.n_images, apgd.planned, apgd.coverage) == (11, 12, pytest.approx(11 / 12))
    assert apgd.status == "partial: 11 of 12 images; the attack left the Linf ball: 0.3 > 0.2"
    assert apgd.robust_mean == pytest.approx(6 / 11)
    assert square.status == "partial: 6 of 12 images; not run"
    worst = row(frame, "plain", WORST)
    assert worst.n_images == 5
    assert pd.isna(worst["rank"])


def test_results_beyond_eps_are_failures_of_infinite_size(tmp_path):
    results = [
        result(line("plain", "none"), [1] * 6, size=0),
        result(
            line("plain", "ddn", minimisation=True), [0, 0, 0, 0, 1, 1],
            size=np.array([0.1] * 4 + [0.9] * 2, np.float32),
            beyond=np.array([False] * 4 + [True] * 2), in_ball=np.array([True] * 4 + [False] * 2),
        ),
    ]  # fmt: skip
    found = row(summary(write(tmp_path, results)), "plain", "ddn")
    assert found.n_images == 6
    assert found.robust_mean == pytest.approx(2 / 6)
    assert found.median_perturbation == pytest.approx(0.1)


def test_several_radii_are_ranked_apart(tmp_path):
    near, far = deterministic(eps="1/10"), deterministic(eps="1/5")
    frame = summary(write(tmp_path, near + far + deterministic("other", eps="1/5")))
    ranks = frame[frame.attack == WORST].set_index(["eps", "defense"])["rank"]
    assert ranks.to_dict() == {("1/10", "plain"): 1, ("1/5", "plain"): 1, ("1/5", "other"): 1}
    assert pivot(frame).columns[:2] == ("threat", "defense")


def test_no_worst_case_without_selection_draws(tmp_path):
    r = result(line("noisy", "apgd", stochastic=True, draws=HELD), [7] * 6, [2] * 6)
    r.records["draws_sel"] = np.zeros(6, np.int32)
    worst = row(summary(write(tmp_path, [r])), "noisy", WORST)
    assert worst.status == "partial: without (all of) the selection draws"
    assert math.isnan(worst.robust_mean)


def test_mixed_origins_are_footnotes(tmp_path, monkeypatch):
    def mixed(cells, manifest):
        assert set(manifest) == {"defenses"}
        assert cells == [{"defense": "plain", "status": "ok", "run": None}]
        return ["made by two versions"]

    monkeypatch.setattr("bench.manifest.mixed", mixed, raising=False)
    assert write_tables(write(tmp_path, deterministic())).footnotes[-1] == "made by two versions"


def test_warnings_of_attacks_are_footnotes(tmp_path):
    import pandas as pd

    from bench.footnotes import warnings

    cells = pd.DataFrame({"attack": ["a", "a", "b"], "status": "ok", "warnings": [["weak"], ["weak"], []]})
    assert warnings(cells) == ("a: weak",)


def test_attacks_that_did_not_run_have_no_warnings(tmp_path):
    told = {"warnings": ["short"]}
    results = [
        *deterministic(),
        failed(line("plain", "ead", **told), "unsupported", "needs L1"),
        failed(line("plain", "pgd", eps="1/10", **told), "unsupported", "no such ball"),
        result(line("plain", "pgd", **told), [1] * 6),
    ]
    notes = write_tables(write(tmp_path, results)).footnotes
    assert "pgd: short" in notes
    assert not any(note.startswith("ead") for note in notes)
    table = pd.read_csv(tmp_path / "tables.csv", keep_default_na=False).set_index(["attack", "eps"])["warnings"]
    assert (table["ead", "1/5"], table["pgd", "1/10"], table["pgd", "1/5"]) == ("", "", "short")


def test_warnings_of_attacks_are_in_every_format(tmp_path):
    import pandas as pd

    from bench.suites import find_attack

    names = ("torchattacks:AutoAttack", "torchattacks:EOTPGD", "torchattacks:SPSA", "torchattacks:OnePixel")
    names += ("torchattacks:CW", "torchattacks:PGD", "foolbox:LinfPGD", "foolbox:L2DeepFoolAttack")
    told = {name: find_attack(name).warnings for name in names}
    write_tables(write(tmp_path, [result(line("plain", n, warnings=list(told[n])), [1] * 6) for n in names]))
    for ending in ("txt", "md", "tex", "html"):
        text = " ".join((tmp_path / f"tables.{ending}").read_text().replace("\\_", "_").split())
        assert all(f"{name}: {w}" in text for name in names for w in told[name]), ending
    table = pd.read_csv(tmp_path / "tables.csv").set_index("attack")["warnings"].fillna("")
    assert all(table[name] == "; ".join(told[name]) for name in names)


def test_defenses_that_are_left_out_have_no_rank(tmp_path):
    from bench.summarise import ranked

    frame = summary(write(tmp_path, [*deterministic("a"), *deterministic("b")]))
    assert frame["rank"].dropna().tolist() == [1, 1]
    left = ranked(frame, without={"a"})
    assert left[left["rank"].notna()]["defense"].tolist() == ["b"]


@pytest.mark.parametrize("forwards", [0, 60])
def test_a_cost_that_could_not_be_counted_is_a_dash(tmp_path, forwards):
    results = deterministic()
    for r in results:
        r.line |= {"forwards": forwards, "backwards": 0}
    folder = write(tmp_path, results)
    frame = summary(folder)
    assert frame["queries_per_image"].tolist()[-1] == 20
    known = frame[frame["attack"].isin(["apgd", WORST])]["evaluations_per_image"]
    assert known.isna().all() if not forwards else known.tolist() == [10, 20]
    shown = full_table(frame)
    at = shown.columns.index("evaluations per image")
    assert {row[at] for row in shown.rows[2:]} == ({"–"} if not forwards else {"10", "20"})
