"""Votes of an image, and the worst of several attacks: counting, and simulation of the bias."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats import voting, worst_case


def test_majority_ties_refusals_and_uncounted_draws():
    pred = [[1, 1, 2], [1, 2, 2], [1, 2, 3], [-1, -1, 1], [1, 2, 2]]
    assert voting.majority(pred, [1] * 5).tolist() == [True, False, False, False, False]
    counted = [[True] * 3] * 4 + [[True, False, False]]
    assert voting.majority(pred, [1] * 5, counted).tolist() == [True, False, False, False, True]
    assert voting.majority(np.zeros((1, 0), int), [0]).tolist() == [False]


@given(st.lists(st.lists(st.integers(-1, 4), min_size=7, max_size=7), min_size=1, max_size=8), st.data())
def test_majority_agrees_with_counting(pred, data):
    label = data.draw(st.lists(st.integers(0, 4), min_size=len(pred), max_size=len(pred)))
    expected = [
        all(row.count(y) > row.count(k) for k in range(-1, 5) if k != y) for row, y in zip(pred, label, strict=True)
    ]
    assert voting.majority(pred, label).tolist() == expected


def test_mean_logit():
    logits = np.array([[[2, 0], [0, 1]], [[1, 0], [0, 1]], [[np.nan, 0], [1, 0]]], np.float16)
    assert voting.mean_logit(logits, [0, 0, 0]).tolist() == [True, False, False]  # a tie and NaN are wrong
    assert voting.mean_logit(logits, [1, 1, 1]).tolist() == [False, False, False]


def test_select_worst_is_deterministic_and_skips_missing():
    share = [[0.5, np.nan, np.nan, 0.0], [0.5, 0.9, np.nan, 0.1], [0.2, 0.8, np.nan, 0.0]]
    assert worst_case.select_worst(share).tolist() == [2, 2, -1, 0]
    assert worst_case.select_worst(np.zeros((0, 3))).tolist() == [-1, -1, -1]


def test_select_worst_prefers_the_smaller_success_of_equals():
    share = np.array([[0.0, 0.2, 0.5, 1.0, 0.0], [0.0, 0.2, 0.5, 1.0, 0.1]])
    size = np.array([[2.0, np.inf, 2.0, 2.0, 2.0], [1.5, 1.0, 1.0, 1.0, 1.0]])
    assert worst_case.select_worst(share, size).tolist() == [1, 1, 0, 0, 0]


def test_select_worst_breaks_ties_by_margins_before_sizes():
    share, size = np.array([[0.0, 1.0], [0.0, 1.0], [0.2, 0.5]]), np.array([[1.0], [2.0], [0.5]])
    margin = np.array([[-1.0, 3.0], [-4.0, 2.0], [-9.0, 1.0]])
    assert worst_case.select_worst(share, size, margin=margin).tolist() == [1, 2]
    assert worst_case.select_worst(share[:2], size[:2], margin=margin[:2]).tolist() == [1, 1]
    assert worst_case.select_worst(share[:2], size[:2], margin=[[np.nan], [3.0]]).tolist() == [1, 1]


def test_select_worst_takes_what_attacks_before_clean_images():
    ones = np.ones((3, 2))
    assert worst_case.select_worst(ones, 0, no_attack=[[True], [False], [False]]).tolist() == [1, 1]
    assert worst_case.select_worst([[0.5], [1.0]], 0, no_attack=[[True], [False]]).tolist() == [0]


@pytest.mark.parametrize("draws", [2, 8, 32])
def test_a_tie_with_clean_images_leaves_the_worst_case_unbiased(draws):
    rng, images, p = np.random.default_rng(6), 40_000, np.array([[1.0], [0.9]])
    chosen_on, held_out = rng.binomial(draws, p, (2, images)), rng.binomial(15, p, (2, images))
    worst = worst_case.worst_case(chosen_on, held_out, draws, 15, [[0.0], [0.2]], no_attack=[[True], [False]])
    assert (worst.withstood / worst.n).mean() == pytest.approx(0.9, abs=0.003)  # .943 at 8 when clean images win ties


def test_margins_choose_between_attacks_that_few_draws_cannot_tell_apart():
    rng, images, draws = np.random.default_rng(7), 20_000, 8
    centre = np.array([[2.0], [1.3]])  # standard deviation 1: right with .977 and .903
    margins = centre + rng.standard_normal((draws, 2, images))
    held_out = (centre + rng.standard_normal((15, 2, images)) > 0).sum(0)
    chosen_on = (margins > 0).sum(0)
    blind, worst = (worst_case.worst_case(chosen_on, held_out, draws, 15, margin=m) for m in (np.nan, margins.mean(0)))
    plain, by_margin = ((w.withstood / w.n).mean() for w in (blind, worst))
    assert 0.9 < by_margin < 0.915 < 0.925 < plain


def test_worst_case_counts_what_was_not_chosen_on():
    worst = worst_case.worst_case([[4, 8, np.nan], [8, 1, np.nan]], [[9, 2, 3], [1, 7, 4]], 8, 15)
    assert worst.attack.tolist() == [0, 1, -1]
    assert worst.withstood[:2].tolist() == [9, 7]
    assert np.isnan(worst.withstood[2])
    assert worst.n[0] == 15
    with pytest.raises(ValueError, match="selection draws"):
        worst_case.worst_case([[0]], [[1]], 0, 15)


def test_plain_minimum_is_biased_and_the_held_out_worst_is_not():
    rng, attacks, images, draws, p = np.random.default_rng(2), 8, 20_000, 10, 0.9
    chosen_on, held_out = rng.binomial(draws, p, (2, attacks, images))
    plain = held_out.min(0).mean() / draws
    worst = worst_case.worst_case(chosen_on, held_out, draws, draws)
    assert plain == pytest.approx(0.75, abs=0.02)  # evaluation.md: .90 becomes .75
    assert (worst.withstood / worst.n).mean() == pytest.approx(p, abs=0.003)


def test_worst_case_finds_the_stronger_attack():
    rng, images = np.random.default_rng(3), 5000
    p = np.stack([np.full(images, 0.9), np.where(np.arange(images) % 2, 0.2, 0.95)])
    chosen_on, held_out = rng.binomial(8, p), rng.binomial(15, p)
    worst = worst_case.worst_case(chosen_on, held_out, 8, 15)
    odd = np.arange(images) % 2 == 1
    assert (worst.attack[odd] == 1).mean() > 0.99
    assert (worst.withstood[odd] / 15).mean() == pytest.approx(0.2, abs=0.02)
