"""Sample sizes against known figures, simulation and each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from boards import purebench_here
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bench.stats import power
from bench.stats.bootstrap import Split
from bench.stats.power import Question
from defenses.utils.errors import UserError


@pytest.mark.parametrize("text", ["3pp", "3%", ".03", "0.03", " 3 PP", "3.0 %", "3e-2"])
def test_a_difference_is_read(text):
    assert power.difference(text) == pytest.approx(0.03)


@pytest.mark.parametrize("text", ["3", "", "x", "-3%", "0", "100%", "nan", "inf", "pp", "3pp%"])
def test_what_is_no_difference_is_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"write 3pp, 3% or \.03"):
        power.difference(text)


def test_three_points_take_the_known_numbers_of_images():
    asked = Question(0.03)
    assert 4300 <= power.unpaired(asked) <= 4400  # evaluation.md: about 4300
    assert power.paired(asked) == 870


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"power": 1.5}, "power is 1.5"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"power": 0.04}, "no more than alpha"),
        ({"discordance": 0.02}, "set the discordance to at least 0.03"),
        ({"discordance": float("nan")}, "discordance is nan"),
    ],
)
def test_questions_out_of_range_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        Question(**({"detect": 0.03} | change))


def test_the_paired_size_has_its_power_and_the_exact_one_is_counted_right():
    rng, asked = np.random.default_rng(0), Question(0.05, discordance=0.12)
    n, trials = power.paired(asked), 4000
    cells = rng.multinomial(n, [0.085, 0.035, 0.88], trials)
    a, b = cells[:, 0], cells[:, 1]
    score = np.abs(a - b) / np.sqrt(np.maximum(a + b, 1)) >= 1.959964
    assert score.mean() == pytest.approx(0.80, abs=0.02)
    exact = np.mean([binomtest(int(x), int(x + y)).pvalue <= 0.05 for x, y in cells[:, :2] if x + y])
    assert power.exact_power(asked, n) == pytest.approx(exact, abs=0.02)
    assert power.exact_power(asked, n) < 0.8 < power.exact_power(asked, round(1.12 * n))


def test_the_unpaired_size_has_its_power():
    rng, asked = np.random.default_rng(1), Question(0.05, accuracy=0.3)
    n = power.unpaired(asked)
    a, b = rng.binomial(n, 0.25, 20_000) / n, rng.binomial(n, 0.30, 20_000) / n
    mean = (a + b) / 2
    found = np.abs(a - b) / np.sqrt(2 * mean * (1 - mean) / n) > 1.959964
    assert found.mean() == pytest.approx(0.80, abs=0.015)


@given(st.floats(0.01, 0.2), st.floats(0.21, 0.6), st.floats(0.6, 0.95), st.integers(50, 20_000), st.booleans())
def test_what_is_detectable_needs_the_images_there_are(detect, discordance, reached, images, same):
    asked = Question(detect, reached, 0.05, discordance)
    needed = power.paired if same else power.unpaired
    assert needed(replace(asked, detect=detect * 0.9)) >= needed(asked)
    found = power.detectable(asked, images, same=same)
    if found is None:
        assert needed(replace(asked, detect=discordance if same else 0.999)) > images
        return
    assert needed(replace(asked, detect=found, discordance=max(found, discordance))) <= images
    less = found * 0.99
    assert needed(replace(asked, detect=less, discordance=max(less, discordance))) >= images * 0.97


def test_too_few_images_show_nothing():
    assert power.detectable(Question(0.03), 5, same=True) is None


@given(st.floats(0.001, 0.25), st.floats(0.001, 0.25), st.floats(0.01, 0.5))
def test_draws_worth_having_are_the_fewest_odd_ones(images, draws, wider):
    split = Split(images, draws)
    enough = power.draws_worth(split, wider)
    assert enough % 2 == 1
    assert power.widening(split, enough) <= wider + 1e-9
    assert enough <= 2 or power.widening(split, enough - 2) > wider - 1e-9


def test_an_even_spread_and_equal_images():
    assert power.widening(Split(1 / 12, 1 / 6), 65) == pytest.approx((1 + 2 / 65) ** 0.5 - 1)
    assert power.draws_worth(Split(0.0, 0.2)) is None
    assert power.widening(Split(0.0, 0.2), 5) == float("inf")


def test_the_command_tells_images_and_draws():
    done = purebench_here("plan", "digits-linf", "--detect", "3pp")
    assert done.returncode == 0
    assert "4,356 images for each defense, or 870 if both see the same ones" in done.stdout
    assert "500 images on this board show" in done.stdout
    assert "draws: adp, worst case: 65 widen the interval" in done.stdout
    assert "images for each defense" not in purebench_here("plan", "digits-linf").stdout


def test_without_results_the_draws_are_those_of_an_even_spread(tmp_path):
    done = purebench_here("plan", "quickstart", "--detect", "3%", "--out", tmp_path / "none")
    assert "draws: accuracies spread evenly: 15 widen the interval over images by 6.5%" in done.stdout


@pytest.mark.parametrize("arguments", [("3",), ("1e-9",), ("3pp", "--power", "2"), ("3pp", "--discordance", ".01")])
def test_the_command_refuses_in_one_line(arguments):
    done = purebench_here("plan", "digits-linf", "--detect", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
