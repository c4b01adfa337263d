"""Statistics against closed forms, other libraries and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from bench.stats import median, paired, proportions, voting, worst_case

counts = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_agrees_with_scipy(case):
    k, n = case
    low, high = proportions.wilson(k, n)
    reference = binomtest(k, n).proportion_ci(0.95, "wilson")
    assert low == pytest.approx(reference.low, abs=1e-12)
    assert high == pytest.approx(reference.high, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.5, 0.999))
def test_wilson_holds_the_estimate_and_widens(fractions, confidence):
    k, n = math.fsum(fractions), len(fractions)
    low, high = proportions.wilson(min(k, n), n, confidence)
    assert 0 <= low <= k / n + 1e-12
    assert k / n - 1e-12 <= high <= 1
    wider = proportions.wilson(min(k, n), n, 0.9999)
    assert wider[0] <= low + 1e-12
    assert high <= wider[1] + 1e-12


def test_wilson_is_vectorised_and_marks_nothing_as_nan():
    low, high = proportions.wilson([0, 5, 10, 0], [10, 10, 10, 0])
    assert low[0] == 0
    assert high[2] == 1
    assert np.isnan([low[3], high[3]]).all()
    # 0 of 512 still has an upper bound of 0.7% (evaluation.md).
    assert proportions.wilson(0, 512)[1] == pytest.approx(0.0074, abs=1e-4)
    with pytest.raises(ValueError, match="successes"):
        proportions.wilson(11, 10)


def test_wilson_covers_with_images_as_n_and_not_with_draws():
    rng, images, draws, trials = np.random.default_rng(0), 100, 15, 2000
    p = rng.beta(1.5, 0.5, (trials, images))  # images differ: mean .75
    fractions = rng.binomial(draws, p) / draws
    covered = {}
    for name, n in (("images", images), ("draws", images * draws)):
        low, high = proportions.wilson(fractions.mean(1) * n, n)
        covered[name] = np.mean((low <= 0.75) & (high >= 0.75))
    assert covered["images"] >= 0.96
    assert covered["draws"] < 0.80


@given(counts.flatmap(lambda c: st.tuples(st.just(c), st.integers(1, c[1]))))
def test_rob_at_m_is_the_share_of_subsets(case):
    (c, n), m = case
    assert proportions.rob_at_m(c, n, m) == pytest.approx(math.comb(c, m) / math.comb(n, m), rel=1e-9)


def test_rob_at_m_counts_subsets_by_hand():
    right = [1, 1, 0, 1, 1, 0]
    subsets = list(itertools.combinations(right, 3))
    assert proportions.rob_at_m(4, 6, 3) == pytest.approx(np.mean([all(s) for s in subsets]))
    with pytest.raises(ValueError, match="at least 7"):
        proportions.rob_at_m(4, 6, 7)


def test_rob_at_m_is_unbiased_where_the_plug_in_is_not():
    rng, p, n, m = np.random.default_rng(1), 0.8, 15, 5
    c = rng.binomial(n, p, 200_000)
    assert proportions.rob_at_m(c, n, m).mean() == pytest.approx(p**m, abs=0.003)
    assert ((c / n) ** m).mean() > p**m + 0.02


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


def test_attack_success_rate_keeps_robust_equal_clean_times_rest():
    clean, adversarial = np.array([1, 1, 1, 0]), np.array([1, 0, 0, 0])
    rate = proportions.attack_success_rate(clean, clean * (1 - adversarial))
    assert (rate.numerator, rate.denominator, rate.value) == (2, 3, 2 / 3)
    assert adversarial.mean() == pytest.approx(clean.mean() * (1 - rate.value))
    assert math.isnan(proportions.attack_success_rate([0], [0]).value)


def test_median_perturbation_counts_failures_as_infinite():
    assert median.median_perturbation([1, 2, 3], [True, True, True]) == 2
    assert median.median_perturbation([1, 2, 3, 4], [True, True, True, False]) == 2.5
    assert median.median_perturbation([1, 2, 3, 4], [True, True, False, False]) == math.inf
    assert median.median_perturbation([1, 2], [False, False]) == math.inf
    assert math.isnan(median.median_perturbation([], []))


def test_the_interval_of_a_median_is_of_order_statistics():
    sizes = np.arange(1.0, 26.0)
    # Conover 1999, table A3: of 25 values the 8th and the 18th, 95.7%.
    assert median.median_interval(sizes, np.ones(25, bool)) == (8, 18)
    assert median.median_interval(sizes, sizes <= 17) == (8, math.inf)
    assert median.median_interval(sizes[:6], np.ones(6, bool)) == (1, 6)
    assert median.median_interval(sizes[:5], np.ones(5, bool)) == (0, math.inf)
    assert median.median_interval(sizes[:6], np.zeros(6, bool)) == (math.inf, math.inf)
    assert all(math.isnan(end) for end in median.median_interval([], []))


@given(st.lists(st.tuples(st.floats(0, 9), st.booleans()), min_size=1, max_size=60), st.floats(0.5, 0.99))
def test_the_interval_of_a_median_holds_it_and_widens(cases, confidence):
    size, success = zip(*cases, strict=True)
    low, high = median.median_interval(size, success, confidence)
    wider = median.median_interval(size, success, (1 + confidence) / 2)
    assert wider[0] <= low <= median.median_perturbation(size, success) <= high <= wider[1]


@pytest.mark.parametrize("failing", [0.0, 0.3, 0.45])
@pytest.mark.parametrize("n", [7, 30, 101])
def test_the_interval_of_a_median_covers_as_often_as_it_says(n, failing):
    """Sizes are exponential where the attack succeeds; so the median of all is known."""
    rng, repeats = np.random.default_rng(0), 4000
    true = -math.log(1 - 0.5 / (1 - failing))
    size, success = rng.exponential(size=(repeats, n)), rng.random((repeats, n)) >= failing
    ends = np.array([median.median_interval(*case) for case in zip(size, success, strict=True)])
    covered = float(((ends[:, 0] <= true) & (true <= ends[:, 1])).mean())
    below = binom.ppf(0.025, n, 0.5)
    below -= binom.cdf(below, n, 0.5) > 0.025
    exact = 1 - 2 * binom.cdf(below, n, 0.5)
    assert exact >= 0.95
    assert covered == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / repeats))


def test_paired_difference_is_mcnemar_for_single_verdicts():
    a = np.array([1] * 60 + [1] * 15 + [0] * 5 + [0] * 20)
    b = np.array([1] * 60 + [0] * 15 + [1] * 5 + [0] * 20)
    found = paired.paired_difference(a, b)
    assert (found.difference, found.only_a, found.only_b, found.n) == (pytest.approx(0.1), 15, 5, 100)
    assert found.p_value == pytest.approx(2 * sum(math.comb(20, k) for k in range(6)) / 2**20)
    assert found.low < 0.1 < found.high
    same = paired.paired_difference(a, a)
    assert same.p_value == 1
    assert same.low < 0 < same.high  # equal samples do not prove equality


def test_paired_difference_of_fractions_is_the_normal_interval_of_many_images():
    rng = np.random.default_rng(4)
    a, b = rng.binomial(15, 0.8, 2000) / 15, rng.binomial(15, 0.7, 2000) / 15
    found = paired.paired_difference(a, b)
    assert found.p_value is None
    half = 1.96 * (a - b).std(ddof=1) / math.sqrt(2000)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.03)
    assert (found.high + found.low) / 2 == pytest.approx(found.difference, rel=0.01)
    with pytest.raises(ValueError, match="same images"):
        paired.paired_difference(a, b[:-1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_paired_difference_changes_sign_with_its_arguments(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, (2, 40))
    there, back = paired.paired_difference(a, b), paired.paired_difference(b, a)
    assert there.difference == -back.difference
    assert there.p_value == pytest.approx(back.p_value)
    assert there.low == pytest.approx(-back.high)


@pytest.mark.parametrize("value", [0.5, 0, 1])
def test_paired_interval_of_equal_defenses_has_width(value):
    found = paired.paired_difference([value] * 10, [value] * 10)
    half = 1.959964 * math.sqrt(2) / 12  # Bonett and Price, no discordant image
    assert (found.low, found.high) == (pytest.approx(-half), pytest.approx(half))


def test_paired_interval_is_bonett_and_price_s():
    a, b = np.repeat([1, 0, 1, 0], [15, 5, 60, 20]), np.repeat([0, 1, 1, 0], [15, 5, 60, 20])
    up, down = 16 / 102, 6 / 102
    half = 1.959964 * math.sqrt((up + down - (up - down) ** 2) / 102)
    found = paired.paired_difference(a, b)
    assert (found.low, found.high) == (pytest.approx(up - down - half), pytest.approx(up - down + half))


@pytest.mark.parametrize("n", [32, 100, 500])
@pytest.mark.parametrize("differ", [0.01, 0.02, 0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["better", "better or worse", "shares"])
def test_paired_intervals_cover_however_few_images_differ(n, differ, kind):
    rng, covered = np.random.default_rng(5), []
    for _ in range(1500):
        better = {"better": np.ones(n), "better or worse": rng.random(n) < 0.75, "shares": rng.random(n)}[kind]
        a = np.where(rng.random(n) < differ, better, 0.5 if kind == "better or worse" else 0)
        b = np.where((a == 0) & (kind == "better or worse"), 1.0, np.where(a == 0.5, 0.5, 0))
        found = paired.paired_difference(a, b)
        covered.append(found.low <= differ * {"better": 1}.get(kind, 0.5) <= found.high)
    assert np.mean(covered) >= 0.93
