"""Differences of two defenses on the same images: closed forms and coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.stats import paired


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


@settings(max_examples=20)
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
