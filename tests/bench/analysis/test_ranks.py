"""Which ranks the images can tell apart."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from fake_board import HELD, SEL, deterministic, line, result, stochastic, write

from bench import rank_ranges
from bench.analysis.ranks import rank_ranges_of
from bench.analysis.results import read_results
from bench.analysis.rows import grouped
from bench.analysis.sides import worst_side
from bench.stats.paired import all_paired_differences, paired_difference


def by_hand(values, confidence, correction="bonferroni"):
    """The definition, pair by pair."""
    j = values.shape[1]
    level = 1 - (1 - confidence) / (max(1, j - 1) if correction == "bonferroni" else 1)
    ranges = []
    for i in range(j):
        pairs = [paired_difference(values[:, k], values[:, i], confidence=level) for k in range(j) if k != i]
        ranges.append((1 + sum(p.low > 0 for p in pairs), j - sum(p.high < 0 for p in pairs)))
    return ranges


def ranges(frame):
    return list(zip(frame["rank_low"], frame["rank_high"], strict=True))


def board(rng, n, j, *, draws=1):
    """Shares of images that are hard or easy for all defenses alike, of true accuracies that may tie."""
    truth = rng.choice([0.2, 0.3, 0.5, 0.8], j) if j > 1 else np.array([0.5])
    hard = rng.random((n, 1)) * 0.6 + rng.random((n, j)) * 0.4
    order = hard.argsort(0).argsort(0) / n
    return np.round((order < truth) * draws * rng.choice([1, 0.9], (n, j))) / draws, truth


@pytest.mark.parametrize("correction", ["bonferroni", "none"])
@pytest.mark.parametrize(("n", "j", "draws"), [(1, 3, 1), (30, 2, 1), (60, 6, 5), (200, 9, 65)])
def test_ranges_are_those_of_the_definition(n, j, draws, correction):
    values, _ = board(np.random.default_rng(n + j), n, j, draws=draws)
    for confidence in (0.5, 0.95):
        found = rank_ranges(values, confidence=confidence, correction=correction)
        assert ranges(found) == by_hand(values, confidence, correction)
    assert found["share"].tolist() == pytest.approx(values.mean(0).tolist())
    low, high = all_paired_differences(values)[1:]
    for a in range(j):
        for b in range(j):
            pair = paired_difference(values[:, a], values[:, b])
            assert (low[a, b], high[a, b]) == pytest.approx((pair.low, pair.high), abs=1e-12)


def test_the_true_rank_is_covered_on_ninety_five_percent_of_the_rows():
    """Images are drawn anew for every board; means of all images are known, with ties and close neighbours."""
    rng = np.random.default_rng(0)
    truth = np.array([0.25, 0.5, 0.5, 0.55, 0.58, 0.62, 0.75, 0.9])
    best = np.array([1 + (truth > t).sum() for t in truth])
    worst = np.array([len(truth) - (truth < t).sum() for t in truth])
    covered, narrow = np.zeros(len(truth)), np.zeros(len(truth))
    boards = 400
    for i in range(boards):
        common = rng.random((150, 1)) < 0.5  # half of the images are as hard for all
        uniform = np.where(common, rng.random((150, 1)), rng.random((150, len(truth))))
        found = rank_ranges((uniform < truth).astype(float), confidence=0.95)
        covered += (found["rank_low"] <= best) & (found["rank_high"] >= worst)
        narrow += found["rank_high"] - found["rank_low"] < len(truth) - 1
        if not i:
            assert len(set(ranges(found))) > 1
    assert (covered / boards >= 0.95).all(), covered / boards
    assert (narrow / boards > 0.9).all(), narrow / boards  # and not because nothing is excluded


def test_without_a_correction_ranges_are_narrower():
    values, _ = board(np.random.default_rng(5), 150, 12)
    wide, bare = rank_ranges(values), rank_ranges(values, correction="none")
    assert (wide["rank_low"] <= bare["rank_low"]).all()
    assert (wide["rank_high"] >= bare["rank_high"]).all()
    assert ranges(wide) != ranges(bare)


def test_equal_defenses_have_all_ranks():
    values = np.repeat(np.random.default_rng(0).random((50, 1)), 7, axis=1)
    assert ranges(rank_ranges(values)) == [(1, 7)] * 7


def test_ties_share_their_range_and_a_far_one_is_apart():
    rng = np.random.default_rng(1)
    two = (rng.random((200, 1)) < 0.8).astype(float)
    values = np.hstack([two, (rng.random((200, 1)) < 0.1).astype(float), two])
    assert ranges(rank_ranges(values)) == [(1, 2), (3, 3), (1, 2)]


def test_a_single_defense_is_first():
    assert ranges(rank_ranges(np.array([[0.0], [1.0]]))) == [(1, 1)]


def test_other_orders_of_rows_and_columns_change_nothing():
    values, _ = board(np.random.default_rng(2), 120, 10, draws=5)
    names = [f"d{i}" for i in range(10)]
    frame = pd.DataFrame(values, columns=names)
    usual = rank_ranges(frame).set_index("defense")
    rng = np.random.default_rng(3)
    mixed = rank_ranges(frame.iloc[rng.permutation(120), rng.permutation(10)]).set_index("defense").loc[names]
    pd.testing.assert_frame_equal(usual, mixed)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[0.5, np.nan]], "a share in .0, 1. for every defense"),
        ([[0.5, 1.2]], "a share in .0, 1. for every defense"),
        (np.zeros((0, 3)), "at least one image"),
        ([0.5, 0.5], "by image and defense"),
        (0.5, "by image and defense"),
    ],
)
def test_what_are_no_shares_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        rank_ranges(np.asarray(values))


@pytest.mark.parametrize("more", [{"confidence": 1}, {"confidence": 0}, {"correction": "holm"}])
def test_a_confidence_or_correction_that_is_none_is_refused(more):
    with pytest.raises(ValueError, match="must"):
        rank_ranges(np.zeros((2, 2)), **more)


def test_two_hundred_defenses_take_less_than_two_seconds():
    values, _ = board(np.random.default_rng(4), 1000, 200)
    begin = time.process_time()
    rank_ranges(values)
    assert time.process_time() - begin < 2


def sides(folder):
    return [side for seeds in grouped(read_results(folder)) if (side := worst_side(seeds)) is not None]


def many(name, right, *, images=100, **more):
    more = {"images": images, "indices": "first-100"} | more
    flags = (np.arange(images) < right).astype(int)
    return [result(line(name, "none", **more), [1] * images, size=0), result(line(name, "apgd", **more), flags)]


def test_rows_are_told_apart_on_the_same_images_alone(tmp_path):
    rows = many("weak", 10) + many("strong", 90) + many("cheap", 40, budget="reduced")
    found = rank_ranges_of(sides(write(tmp_path / "out", rows)))
    assert found == [(2, 3), (1, 2), (1, 3)]  # nothing is known of the one of another budget


def test_draws_of_another_number_are_not_told_apart(tmp_path):
    more = {"stochastic": True, "draws": HELD, "selection": SEL}
    few = [result(line("few", a, **more), [15] * 6, [2] * 6) for a in ("none", "pgd")]
    for r in few:
        r.records["draws_sel"] = r.records["draws_sel"] // 2
        r.records["correct_sel"] = r.records["correct_sel"] // 2
    found = rank_ranges_of(sides(write(tmp_path / "out", stochastic() + few)), confidence=0.5)
    assert found == [(1, 2), (1, 2)]


def test_trainings_that_differ_widen_the_range(tmp_path):
    """Of one training each, the same means would be told apart."""
    seeds = [r for seed, right in enumerate((0, 60, 100)) for r in many("at", right, training_seed=seed)]
    found = rank_ranges_of(sides(write(tmp_path / "seeds", seeds + many("low", 10))))
    assert found == [(1, 2), (1, 2)]
    assert rank_ranges_of(sides(write(tmp_path / "one", many("at", 53) + many("low", 10)))) == [(1, 1), (2, 2)]


def test_a_row_without_a_verdict_has_no_side(tmp_path):
    gap = result(line("other", "apgd"), [1] * 6, problems=["boom"] * 6)
    clean = result(line("other", "none"), [1] * 6, size=0)
    assert [s.title for s in sides(write(tmp_path / "out", [*deterministic(), clean, gap]))] == ["plain, worst case"]
