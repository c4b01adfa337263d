"""The per-image worst case agrees with the table's, and is chosen on other draws than it is counted on."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fake_board import HELD, SEL, deterministic, failed, line, result, row, stochastic, write

from bench import summary, worst_per_image
from bench.analysis import worst_case
from bench.analysis.compare import compare
from bench.analysis.results import read_results
from bench.analysis.summary import WORST


@pytest.fixture
def out(tmp_path):
    return write(tmp_path / "out", deterministic() + stochastic())


def test_mean_is_the_table_s(out):
    rows = summary(out)
    expected = rows[rows["attack"] == WORST].set_index("defense")["robust_mean"]
    ours = worst_per_image(out).groupby("defense")[["accuracy", "robust"]].mean()
    for column in ours:
        pd.testing.assert_series_equal(ours[column], expected, check_names=False, check_like=True)


def test_verdicts_of_one_defense_are_held_at_a_time(tmp_path, monkeypatch):
    defenses = [result for name in "abcd" for result in deterministic(name)]
    grouped, held, most = worst_case.grouped, weakref.WeakSet(), []

    def watched(results):
        for groups in grouped(results):
            held.update(groups)
            gc.collect()
            most.append(len(held))
            yield groups
            del groups

    monkeypatch.setattr(worst_case, "grouped", watched)
    assert worst_per_image(write(tmp_path / "out", defenses))["defense"].nunique() == 4
    assert len(most) == 4
    assert max(most) <= 2


def test_rows_name_the_attack(out):
    worst = worst_per_image(read_results(out)).set_index(["defense", "image"])
    assert worst.loc["noisy", "attack"].tolist() == ["square", "apgd", "square", "apgd", "apgd", "square"]
    assert set(worst["label"]) == {0}
    assert worst.loc["noisy", "clean"].tolist() == [c / 15 for c in (15, 15, 15, 15, 12, 3)]


def test_margins_of_selection_draws_break_ties_of_a_single_held_out_draw(tmp_path):
    """All selection draws withstand both attacks, those of the second one by less."""
    more = {"stochastic": True, "draws": 1, "selection": SEL}
    cells = [result(line("noisy", name, **more), [HELD] * 6, [SEL] * 6) for name in ("none", "apgd", "square")]
    for cell, margin in zip(cells, (3.0, 2.0, 1.0), strict=True):
        cell.draws["margin"] = np.full(len(cell.draws["draw"]), margin, np.float32)
        kept = cell.draws["draw"] <= SEL  # one draw is held out
        cell.draws = {name: values.filter(pa.array(kept)) if isinstance(values, pa.Array) else values[kept]
                      for name, values in cell.draws.items()}  # fmt: skip
        cell.records["correct"], cell.records["draws"] = np.ones(6, np.int32), np.ones(6, np.int32)
    assert set(worst_per_image(write(tmp_path / "out", cells))["attack"]) == {"square"}


def test_images_without_a_verdict_are_left_out(out):
    results = read_results(out)
    attack = results.cells["attack"].take(results.records["at"]).to_numpy()
    gap = (results.records["index"] == 3) & (attack == "apgd")
    some = replace(results, records=results.records.assign(accuracy=results.records["accuracy"].mask(gap)))
    assert len(worst_per_image(some)) == 10


def test_attacks_that_crashed_or_have_not_run_leave_no_image(tmp_path):
    crashed = [*deterministic(), failed(line("plain", "ead"), "error", "boom"), *deterministic("other")]
    assert set(worst_per_image(write(tmp_path / "a", crashed))["defense"]) == {"other"}
    waiting = [r.line for r in deterministic()] + [line("plain", "ead")]
    assert worst_per_image(write(tmp_path / "b", deterministic(), waiting)).empty


def test_attacks_that_nobody_supports_are_excepted(tmp_path):
    results = [*deterministic(), failed(line("plain", "ead"), "unsupported", "needs L1")]
    worst = worst_per_image(write(tmp_path, results))
    assert worst["robust"].mean() == row(summary(tmp_path), "plain", WORST).robust_mean
    assert len(worst) == 6


def test_choice_does_not_see_the_held_out_draws(tmp_path):
    more = {"stochastic": True, "draws": HELD, "selection": SEL}
    results = [
        result(line("noisy", "none", **more), [15] * 6, [4] * 6, size=0),
        result(line("noisy", "apgd", **more), [15] * 6, [1] * 6),
        result(line("noisy", "square", **more), [0] * 6, [2] * 6),
    ]
    assert set(worst_per_image(write(tmp_path, results))["attack"]) == {"apgd"}


def test_under_a_targeted_threat_robust_and_accuracy_differ(tmp_path):
    results = [
        result(line("plain", "none", targets="next"), [1] * 6, size=0),
        result(line("plain", "apgd", targets="next"), [0] * 6),
    ]
    worst = worst_per_image(write(tmp_path, results))
    assert set(worst["attack"]) == {"apgd"}  # it never gives the target, no more than the clean image does
    assert (set(worst["accuracy"]), set(worst["robust"])) == ({0.0}, {1.0})


def with_margins(found, sel, held=0.0, logits=None):
    """The result with these margins of its selection and held-out draws."""
    held_out = found.draws["held_out"]
    found.draws["margin"] = np.where(held_out, held, sel).astype(np.float32)
    if logits is not None:
        flat = np.where(held_out[:, None], np.zeros(3), logits).astype(np.float16)
        found.draws["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), 3)
    return found


def test_ties_go_by_the_margins_of_selection_draws_alone(tmp_path):
    more = {"stochastic": True, "draws": HELD, "selection": SEL}
    results = [
        with_margins(result(line("noisy", "none", **more), [15] * 6, [4] * 6, size=0), 5.0),
        with_margins(result(line("noisy", "square", **more), [15] * 6, [4] * 6, size=0.1), 2.0, held=-9.0),
        with_margins(result(line("noisy", "apgd", **more), [14] * 6, [4] * 6), 1.0, held=9.0),
    ]
    worst = worst_per_image(write(tmp_path, results))
    assert set(worst["attack"]) == {"apgd"}
    assert worst["robust"].mean() == row(summary(tmp_path), "noisy", WORST).robust_mean == pytest.approx(14 / 15)
    (found,) = compare(tmp_path, "noisy", "noisy@apgd")
    assert found.difference.value == 0


def test_ties_go_by_the_target_s_margin_when_targeted(tmp_path):
    more = {"stochastic": True, "draws": HELD, "selection": SEL, "targets": "next"}
    target = {"target": np.full(6, 2, np.int16)}
    results = [
        with_margins(result(line("noisy", "none", **more), [15] * 6, [4] * 6, size=0, **target), 5.0, logits=[9, 0, 0]),
        with_margins(result(line("noisy", "apgd", **more), [0] * 6, [0] * 6, **target), -9.0, logits=[0, 9, 1]),
        with_margins(result(line("noisy", "square", **more), [0] * 6, [0] * 6, **target), -2.0, logits=[0, 9, 8]),
    ]
    assert set(worst_per_image(write(tmp_path, results))["attack"]) == {"square"}
