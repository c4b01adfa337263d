"""Tables of what is missing, failed or not to be compared: shown as such, and never robust."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from fake_board import HELD, deterministic, failed, line, result, row, write

from bench import load_cells, summary
from bench.analysis.summary import WORST
from bench.report.comparison_table import pivot
from bench.report.full_table import full_table


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
    assert pd.isna(worst["strict_rank"])
    assert row(frame, "other", WORST)["strict_rank"] == 1
    assert load_cells(tmp_path).status.value_counts()["error"] == 1


def test_attacks_that_nobody_supports_cost_no_rank(tmp_path):
    def both(status):
        other = failed(line("other", "ead"), *status) if status else result(line("other", "ead"), [1] * 6)
        return [failed(line("plain", "ead"), "unsupported", "needs L1"), other]

    everywhere = write(tmp_path / "a", deterministic() + deterministic("other") + both(("unsupported", "needs L1")))
    frame = summary(everywhere)
    assert row(frame, "plain", "ead").status == "unsupported: needs L1"
    assert frame[frame.attack == WORST]["strict_rank"].tolist() == [1, 1]
    # Nobody has run the others yet: what one defense lacks is then no gap of its own.
    lone = deterministic() + both(("unsupported", "needs L1"))[:1]
    frame = summary(write(tmp_path / "c", lone, [*(r.line for r in lone), line("other", "ead")]))
    assert frame[frame.attack == WORST].status.tolist() == ["ok", "not run"]
    here = write(tmp_path / "b", deterministic() + deterministic("other") + both(None))
    ranks = summary(here).set_index(["defense", "attack"])["strict_rank"]
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
    assert pd.isna(worst["strict_rank"])


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
    ranks = frame[frame.attack == WORST].set_index(["eps", "defense"])["strict_rank"]
    assert ranks.to_dict() == {("1/10", "plain"): 1, ("1/5", "plain"): 1, ("1/5", "other"): 1}
    assert pivot(frame).columns[:2] == ("threat", "defense")


def test_no_worst_case_without_selection_draws(tmp_path):
    r = result(line("noisy", "apgd", stochastic=True, draws=HELD), [7] * 6, [2] * 6)
    r.records["draws_sel"] = np.zeros(6, np.int32)
    worst = row(summary(write(tmp_path, [r])), "noisy", WORST)
    assert worst.status == "partial: without (all of) the selection draws"
    assert math.isnan(worst.robust_mean)


def test_defenses_that_are_left_out_have_no_rank(tmp_path):
    from bench.analysis.summary import ranked

    frame = summary(write(tmp_path, [*deterministic("a"), *deterministic("b")]))
    assert frame["strict_rank"].dropna().tolist() == [1, 1]
    left = ranked(frame, without={"a"})
    assert left[left["strict_rank"].notna()]["defense"].tolist() == ["b"]


@pytest.mark.parametrize("forwards", [0, 60])
def test_a_cost_that_could_not_be_counted_is_a_dash(tmp_path, forwards):
    results = deterministic()
    for r in results:
        r.line |= {"forwards": forwards, "backwards": 0}
    folder = write(tmp_path, results)
    frame = summary(folder)
    assert frame["queries_per_image"].tolist()[-1] == 20
    evaluations = frame[frame["attack"].isin(["apgd", WORST])]["evaluations_per_image"]
    assert evaluations.isna().all() if not forwards else evaluations.tolist() == [10, 20]
    shown = full_table(frame)
    at = shown.columns.index("evaluations per image")
    assert {row[at] for row in shown.rows[2:]} == ({"–"} if not forwards else {"10", "20"})
