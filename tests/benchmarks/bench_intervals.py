"""How often intervals cover, beside those that were not taken, and how far the plain minimum over attacks falls.

Run: python tests/benchmarks/bench_intervals.py [--trials N]

1. A proportion of images with 15 draws each: Wilson's interval with n = images, and with n = images x draws.
2. A paired difference where few images differ: Bonett and Price's interval, and a percentile bootstrap over images.
3. A mean over trainings: Student's t for the trainings, and resampling them (both resample images).
4. Eight equally strong attacks on images that are right in .9 of the draws: minimum of the counts of 10 draws, and the
   worst case, chosen on those and counted on others.
"""

from __future__ import annotations

import argparse

import numpy as np

from bench.stats.bootstrap import over_trainings
from bench.stats.paired import paired_difference
from bench.stats.proportions import wilson
from bench.stats.worst_case import worst_case

RESAMPLES = 1000


def percentiles(means: np.ndarray) -> tuple[float, float]:
    """Return the 95% percentile interval of resampled means."""
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def proportion(rng: np.random.Generator, trials: int) -> None:
    """The first part."""
    fractions = rng.binomial(15, rng.beta(1.5, 0.5, (trials, 100))) / 15  # mean .75
    covered = {}
    for name, n in (("images", 100), ("images x draws", 1500)):
        low, high = wilson(fractions.mean(1) * n, n)
        covered[name] = np.mean((low <= 0.75) & (high >= 0.75))
    print("100 images, 15 draws, Wilson: " + ", ".join(f"n = {name} {share:.1%}" for name, share in covered.items()))


def difference(rng: np.random.Generator, trials: int) -> None:
    """The second part."""
    for n in (32, 100, 500):
        for differ in (0.01, 0.02, 0.05):
            ours = bootstrap = 0
            for _ in range(trials):
                a = (rng.random(n) < differ).astype(float)
                found = paired_difference(a, np.zeros(n))
                ours += found.low <= differ <= found.high
                low, high = percentiles(a[rng.integers(0, n, (RESAMPLES, n))].mean(1))
                bootstrap += low <= differ <= high
            shares = f"Bonett and Price {ours / trials:.1%}, bootstrap over images {bootstrap / trials:.1%}"
            print(f"{n} images, {differ:.0%} of them differ: {shares}")


def trainings(rng: np.random.Generator, trials: int) -> None:
    """The third part."""
    for trained in (3, 5):
        for apart in (0.0, 0.01, 0.05):
            ours = resampled = 0
            for trial in range(trials):
                shares = 0.5 + 0.1 * rng.standard_normal(150) + apart * rng.standard_normal((trained, 1))
                shares = shares + 0.1 * rng.standard_normal((trained, 150))
                found = over_trainings(shares, seed=trial, resamples=RESAMPLES)
                ours += found.low <= 0.5 <= found.high
                chosen = rng.integers(0, trained, (RESAMPLES, trained)), rng.integers(0, 150, (RESAMPLES, 150))
                means = [shares[np.ix_(rows, images)].mean() for rows, images in zip(*chosen, strict=True)]
                low, high = percentiles(np.array(means))
                resampled += low <= 0.5 <= high
            shares_covered = f"Student's t {ours / trials:.1%}, trainings resampled {resampled / trials:.1%}"
            print(f"{trained} trainings, standard deviation {apart:g}: {shares_covered}")


def minimum(rng: np.random.Generator, trials: int) -> None:
    """The fourth part."""
    images = 100 * trials
    chosen_on, held_out = rng.binomial(10, 0.9, (8, images)), rng.binomial(10, 0.9, (8, images))
    worst = worst_case(chosen_on, held_out, 10, 10)
    plain, ours = chosen_on.min(0).mean() / 10, (worst.withstood / worst.n).mean()
    print(f"8 attacks, .9: minimum {plain:.3f}, worst case {ours:.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    trials, rng = parser.parse_args().trials, np.random.default_rng(0)
    for part in (proportion, difference, trainings, minimum):
        part(rng, trials)


if __name__ == "__main__":
    main()
