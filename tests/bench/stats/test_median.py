"""Medians of perturbations and their intervals: order statistics and coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from bench.stats import median


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
