"""Every aggregation against counts done by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa
import pytest
from fake_board import HELD, SEL, deterministic, failed, line, result, row, stochastic, write

import bench
from bench import load_results, summary
from bench.analysis.summary import WORST
from bench.report.comparison_table import pivot
from bench.report.full_table import full_table, narrowed
from bench.report.tables import table_texts
from defenses.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "board", deterministic() + stochastic())


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


def test_the_table_of_a_paper_has_six_columns(folder, tmp_path):
    full = full_table(summary(folder))
    assert len(full.columns) > 12
    table = narrowed(full)
    wanted = ("defense", "attack", "attack view", "robust: mean % [95%]", "Rob(5): unbiased %", "evaluations per image")
    assert table.columns == wanted
    places = [full.columns.index(name) for name in wanted]
    assert table.rows == tuple(tuple(row[at] for at in places) for row in full.rows)
    assert not [note for note in table.footnotes if note.startswith(("median size", "majority vote"))]
    assert narrowed(full_table(summary(folder).head(0))).rows == ()


def test_of_several_threats_fewer_numbers_fit_into_a_paper(tmp_path):
    results = [*deterministic(), *deterministic(eps="1/10"), failed(line("plain", "fab"), "error", "x")]
    board = write(tmp_path / "board", results)
    table = narrowed(full_table(summary(board)))
    assert table.columns[:5] == ("threat", "defense", "attack", "attack view", "robust: mean % [95%]")
    assert len(table.columns) == 6
    assert [row[4] for row in table.rows if row[2] == "fab"] == ["error"]  # the column status is not there
    texts = table_texts(board)[1]
    for text in (texts["tables.tex"], bench.table(board, "latex"), bench.table(load_results(board), "latex")):
        layouts = re.findall(r"begin{tabular}{([lr]*)}", text)
        assert len(layouts[-1]) == 6
    assert len(texts["tables.csv"].splitlines()[0].split(",")) > 40


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
