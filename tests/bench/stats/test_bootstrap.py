"""Bootstrap intervals: coverage by simulation, parity with SciPy and with resampling one by one."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.stats import bootstrap


def test_over_images_is_scipy_s_and_close_to_the_percentiles_of_our_own():
    values = np.random.default_rng(2).binomial(15, 0.8, 200) / 15
    reference = stats.bootstrap((values,), np.mean, n_resamples=2000, rng=np.random.default_rng(3)).confidence_interval
    found = bootstrap.over_images(values, seed=3)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.002)
    plain, ours = bootstrap.over_images(values, method="percentile"), bootstrap.over_trainings(values[None])
    assert (plain.low, plain.high) == pytest.approx((ours.low, ours.high), abs=0.003)


def test_bca_sees_the_skew_of_rare_successes():
    values = np.zeros(200)
    values[:6] = 1
    bca, plain = (bootstrap.over_images(values, method=m) for m in ("BCa", "percentile"))
    assert bca.low > plain.low
    assert bca.high > plain.high


@pytest.mark.parametrize("trainings", [3, 5])
@pytest.mark.parametrize("apart", [0.0, 0.05])
def test_trainings_are_covered_and_images_alone_would_not_be(trainings, apart):
    rng, images, trials, covered, alone = np.random.default_rng(4), 150, 500, 0, 0
    for trial in range(trials):
        trained = apart * rng.standard_normal(trainings)
        shares = 0.5 + 0.1 * rng.standard_normal(images) + trained[:, None]
        shares = shares + 0.1 * rng.standard_normal((trainings, images))
        found = bootstrap.over_trainings(shares, seed=trial, resamples=500)
        covered += found.low <= 0.5 <= found.high
        simple = bootstrap.over_trainings(shares.mean(0)[None], seed=trial, resamples=500)
        alone += simple.low <= 0.5 <= simple.high
    assert 0.93 <= covered / trials <= 0.995
    assert alone / trials < (0.75 if apart else 0.97)


def test_a_difference_of_recipes_takes_both_trainings_in():
    rng = np.random.default_rng(5)
    a, b = (0.5 + 0.05 * rng.standard_normal(3)[:, None] + 0.1 * rng.standard_normal((3, 100)) for _ in range(2))
    both, one = bootstrap.over_trainings(a, b), bootstrap.over_trainings(a, b[:1])
    assert both.value == pytest.approx(a.mean() - b.mean())
    assert both.high - both.low > one.high - one.low
    with pytest.raises(ValueError, match="same images"):
        bootstrap.over_trainings(a, b[:, :-1])


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 9))
def test_intervals_hold_the_estimate_follow_their_seed_and_stay_inside(seed, images, draws):
    shares = np.random.default_rng(seed).integers(0, draws + 1, images)[None] / draws
    found, again = (bootstrap.over_trainings(shares, seed=seed, resamples=400) for _ in range(2))
    assert found == again or np.isnan(found.low)
    assert found.n == images
    if not np.isnan(found.low):
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_where_all_images_agree_nothing_is_said():
    for found in (bootstrap.over_trainings([[0.0] * 9]), bootstrap.over_images([1.0] * 9)):
        assert np.isnan([found.low, found.high]).all()


def test_variance_split_is_unbiased():
    rng, splits = np.random.default_rng(6), []
    for _ in range(400):
        splits.append(bootstrap.variance_split(rng.binomial(7, rng.beta(2, 3, 200)), 7))
    p_mean, p_var = 0.4, 0.4 * 0.6 / 6
    assert np.mean([s.images for s in splits]) == pytest.approx(p_var, rel=0.02)
    assert np.mean([s.draws for s in splits]) == pytest.approx(p_mean * (1 - p_mean) - p_var, rel=0.02)
    with pytest.raises(ValueError, match="two draws"):
        bootstrap.variance_split([1, 0], 1)


def test_ten_thousand_images_take_seconds():
    rng = np.random.default_rng(8)
    correct = rng.binomial(65, rng.beta(0.5, 0.5, 10_000))
    begin = time.process_time()
    bootstrap.over_images(correct / 65, resamples=2000)
    bootstrap.over_trainings(np.stack([correct / 65] * 3), resamples=2000)
    assert time.process_time() - begin < 5


def test_all_pairs_of_trainings_have_the_intervals_of_single_pairs():
    rng = np.random.default_rng(0)
    right = (rng.random((80, 1)) < np.array([0.3, 0.5, 0.9])).astype(float)
    sides = [right[:, [at]].T if at < 2 else np.tile(right[:, at], (3, 1)) for at in range(3)]
    sides[2] = np.abs(sides[2] - (rng.random((3, 80)) < 0.2))  # trainings that differ
    low, high = bootstrap.all_over_trainings(sides, confidence=0.9, resamples=20_000)
    for a in range(3):
        for b in range(3):
            if a != b:
                alone = bootstrap.over_trainings(sides[a], sides[b], confidence=0.9, resamples=20_000)
                assert (low[a, b], high[a, b]) == pytest.approx((alone.low, alone.high), abs=0.015)
    assert low == pytest.approx(-high.T, nan_ok=True)
    assert np.isnan(np.diag(low)).all()
    with pytest.raises(ValueError, match="the same images"):
        bootstrap.all_over_trainings([np.zeros((1, 3)), np.zeros((2, 4))])


def test_forty_defenses_of_three_trainings_take_seconds():
    sides = list(np.random.default_rng(0).random((42, 3, 200)))
    begin = time.process_time()
    bootstrap.all_over_trainings(sides, resamples=10_000)
    assert time.process_time() - begin < 10
