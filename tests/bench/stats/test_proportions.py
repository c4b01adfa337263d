"""Proportions against closed forms, other libraries and simulation."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from bench.stats import proportions

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


def test_wilson_of_another_confidence_is_scipy_s():
    low, high = proportions.wilson(0.3 * 40, [40, 80], 0.8)
    for i, n in enumerate((40, 80)):
        reference = binomtest(12, n).proportion_ci(0.8, "wilson")
        assert (low[i], high[i]) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_ends_of_wilson_s_interval_are_exact_and_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = proportions.wilson(np.append(0, np.arange(1001)), np.append(0, np.full(1001, 1000)), 0.99)
        assert np.isnan(proportions.clopper_pearson([0, 0], 0)).all()
    assert (low[1], high[-1]) == (0, 1)
    assert (low[2:] > 0).all()
    assert (high[1:-1] < 1).all()
    for n in range(1, 200):
        assert proportions.wilson(0, n)[0] == 0
        assert proportions.wilson(n * (1 + 1e-13), n)[1] == 1  # a sum of fractions, rounded upwards


@pytest.mark.parametrize("interval", [proportions.wilson, proportions.clopper_pearson])
def test_intervals_refuse_what_is_no_count_and_no_confidence(interval):
    for k, n in ((-0.5, 10), (10.5, 10), (-1, 10), (11, 10), ([1, 11], 10), ([1, -1], 10)):
        with pytest.raises(ValueError, match=r"successes must .* \[0, n\]"):
            interval(k, n)
    for confidence in (0, 1, -0.1, 1.1):
        with pytest.raises(ValueError, match=f"confidence is {confidence}; it must be between 0 and 1"):
            interval(1, 10, confidence)
    assert np.isnan(interval([3, 0], [10, 0])).tolist() == [[False, True], [False, True]]


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_clopper_pearson_agrees_with_scipy(case, confidence):
    low, high = proportions.clopper_pearson(*case, confidence)
    reference = binomtest(*case).proportion_ci(confidence, "exact")
    assert low == pytest.approx(reference.low, abs=1e-9)
    assert high == pytest.approx(reference.high, abs=1e-9)


@pytest.mark.parametrize("n", [12, 50])
def test_clopper_pearson_covers_at_every_p_and_wilson_does_not(n):
    k, p = np.arange(n + 1), np.linspace(0.001, 0.999, 999)
    chance = binom.pmf(k, n, p[:, None])
    least = {}
    for interval in (proportions.clopper_pearson, proportions.wilson):
        low, high = interval(k, n)
        least[interval.__name__] = (chance * ((low <= p[:, None]) & (p[:, None] <= high))).sum(1).min()
    assert least["clopper_pearson"] >= 0.95
    assert least["wilson"] < 0.95


def test_clopper_pearson_refuses_fractions_and_marks_nothing():
    with pytest.raises(ValueError, match="wilson takes fractions"):
        proportions.clopper_pearson(2.5, 10)
    assert np.isnan(proportions.clopper_pearson(0, 0)).all()
    assert proportions.clopper_pearson(0, 512)[1] == pytest.approx(1 - 0.025 ** (1 / 512))


def test_clopper_pearson_s_ends():
    assert [float(end) for end in proportions.clopper_pearson(0, 1)] == [0, pytest.approx(0.975)]
    assert [float(end) for end in proportions.clopper_pearson(1, 1)] == [pytest.approx(0.025), 1]
    low, high = proportions.clopper_pearson([0, 4, 7], 7)
    assert (low[0], high[2]) == (0, 1)
    assert (low[1:] > 0).all()
    assert (high[:2] < 1).all()
    assert proportions.clopper_pearson_lower([[4], [7]], [7, 10], 0.05) == pytest.approx(
        np.array([[binomtest(k, n).proportion_ci(0.9, "exact").low for n in (7, 10)] for k in (4, 7)])
    )
    assert proportions.clopper_pearson_lower(0, 7, 0.05) == 0
    assert np.isnan(proportions.clopper_pearson_lower(0, 0, 0.05))
    for k, n in ((0.5, 7), (3, 7.5), (8, 7), (-1, 7)):
        with pytest.raises(ValueError, match="whole numbers"):
            proportions.clopper_pearson_lower(k, n, 0.05)


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


def test_rob_at_m_of_no_submission_and_of_no_count_is_refused():
    for m in (0, -1):
        with pytest.raises(ValueError, match=rf"Rob\({m}\) needs m >= 1 and at least {m} draws of every image"):
            proportions.rob_at_m(4, 6, m)
    with pytest.raises(ValueError, match="at least 3 draws"):
        proportions.rob_at_m([2, 2], [6, 2], 3)
    for correct in ([-1, 3], [7, 3]):
        with pytest.raises(ValueError, match=r"correct must lie in \[0, n\]"):
            proportions.rob_at_m(correct, 6, 3)
    assert proportions.rob_at_m([[0], [2], [6]], [6, 8], 2) == pytest.approx(
        np.array([[0, 0], [1 / 15, 1 / 28], [1, 15 / 28]])
    )


def test_rob_at_m_is_unbiased_where_the_plug_in_is_not():
    rng, p, n, m = np.random.default_rng(1), 0.8, 15, 5
    c = rng.binomial(n, p, 200_000)
    assert proportions.rob_at_m(c, n, m).mean() == pytest.approx(p**m, abs=0.003)
    assert ((c / n) ** m).mean() > p**m + 0.02


def test_attack_success_rate_keeps_robust_equal_clean_times_rest():
    clean, adversarial = np.array([1, 1, 1, 0]), np.array([1, 0, 0, 0])
    rate = proportions.attack_success_rate(clean, clean * (1 - adversarial))
    assert (rate.numerator, rate.denominator, rate.value) == (2, 3, 2 / 3)
    assert adversarial.mean() == pytest.approx(clean.mean() * (1 - rate.value))
    assert math.isnan(proportions.attack_success_rate([0], [0]).value)


def test_counts_in_small_integers_do_not_overflow():
    k, n = np.array([0, 3, 200], np.uint8), np.full(3, 200, np.uint8)
    floats = k.astype(float), n.astype(float)
    for interval in (proportions.wilson, proportions.clopper_pearson):
        assert np.array_equal(interval(k, n), interval(*floats))
    for bound in (proportions.clopper_pearson_lower, lambda k, n, _: proportions.rob_at_m(k, n, 5)):
        assert np.array_equal(bound(k, n, 0.05), bound(*floats, 0.05))


def test_the_rate_counts_expected_images():
    rate = proportions.attack_success_rate([0.5, 1, 0.5], [0.5, 0.25, 0])
    assert (rate.numerator, rate.denominator, rate.value) == (0.75, 2, 0.375)
    assert proportions.attack_success_rate([1], [0]).value == 0
    assert len({rate, proportions.Rate(0.75, 2)}) == 1


def test_spread_over_seeds():
    assert proportions.spread([1, 2, 4]) == pytest.approx(math.sqrt(7 / 3))
    assert proportions.spread([0.5, 0.5]) == 0
    assert math.isnan(proportions.spread([3]))
    assert math.isnan(proportions.spread([]))
