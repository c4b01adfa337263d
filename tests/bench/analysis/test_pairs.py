"""Every pair of defenses, as `purebench compare` has it."""

from __future__ import annotations

import functools
from itertools import combinations

import numpy as np
import pytest
from boards import ROOT, purebench_here
from fake_board import deterministic, line, result, stochastic, write

from bench import pairs
from bench.analysis.compare import compare
from bench.analysis.results import read_results

COMMITTED = ROOT / "results" / "digits-linf"
COLUMNS = ["dataset", "split", "indices", "norm", "eps", "eps_value", "targets", "a", "b"]
COLUMNS += ["difference", "low", "high", "only_a", "only_b", "p_value", "n", "status"]


read = functools.cache(read_results)


def trained(name="at"):
    one = [1, 1, 1, 1, 0, 0]
    return [r for seed, right in enumerate((one, one[::-1], [0] * 6)) for r in (
        result(line(name, "none", training_seed=seed), [1] * 6, size=0),
        result(line(name, "apgd", training_seed=seed), right))]  # fmt: skip


@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_every_pair_of_the_committed_board_is_that_of_compare(confidence, monkeypatch):
    monkeypatch.setattr("bench.analysis.compare.results_of", read)  # seconds, were it read for every pair
    found = pairs(read(COMMITTED), confidence=confidence)
    names = ["undefended", "pgd-at", "adp", "ebm-mcmc"]
    assert list(zip(found["a"], found["b"], strict=True)) == list(combinations(names, 2))
    for row in found.itertuples():
        (c,) = compare(COMMITTED, row.a, row.b, confidence=confidence)
        assert (row.difference, row.low, row.high) == (c.difference.value, c.difference.low, c.difference.high)
        assert (row.only_a, row.only_b, row.p_value) == (c.decisions.only_a, c.decisions.only_b, c.decisions.p_value)
        assert (row.n, row.status) == (500, "ok")
        assert (row.dataset, row.norm, row.eps) == ("digits", "Linf", "1/5")


def test_the_command_prints_the_same():
    row = pairs(COMMITTED).set_index(["a", "b"]).loc[("pgd-at", "adp")]
    said = purebench_here("compare", COMMITTED, "pgd-at", "adp").stdout
    low, high = 100 * row["low"], 100 * row["high"]
    assert f"A - B: {100 * row['difference']:+.2f} points [{low:+.2f}, {high:+.2f}]" in said
    assert f"of A alone {row['only_a']:.0f}, of B alone {row['only_b']:.0f}," in said
    assert f"p = {row['p_value']:.3g}" in said


def test_each_setting_has_its_pairs_and_single_trainings_have_a_test(tmp_path):
    rows = [r for eps in ("1/5", "1/10") for name in ("plain", "other") for r in deterministic(name, eps=eps)]
    found = pairs(write(tmp_path / "out", rows + stochastic() + trained()))
    assert list(found) == COLUMNS
    assert found.groupby("eps").size().to_dict() == {"1/5": 6, "1/10": 1}
    of_at = found[(found["a"] == "at") | (found["b"] == "at")]
    assert of_at["p_value"].isna().all()
    assert of_at["difference"].notna().all()
    assert found["p_value"].notna().sum() == 4


def test_pairs_that_do_not_compare_say_why(tmp_path):
    gap = result(line("gap", "apgd"), [1] * 6, problems=["", "boom", "", "", "", ""])
    rows = [*deterministic(), *deterministic("cheap", budget="reduced"), result(line("gap", "none"), [1] * 6), gap]
    found = pairs(write(tmp_path / "out", rows)).set_index(["a", "b"])
    assert found.loc[("plain", "cheap"), "status"].endswith(
        "the full budget and cheap, worst case with the reduced one"
    )
    assert "verdicts of 1 images that gap, worst case has not" in found.loc[("plain", "gap"), "status"]
    assert (found["n"] == 0).all()
    assert np.isnan(found["difference"]).all()


def test_a_single_defense_has_none(tmp_path):
    found = pairs(write(tmp_path / "out", deterministic()))
    assert (len(found), list(found)) == (0, COLUMNS)
