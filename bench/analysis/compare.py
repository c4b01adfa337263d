"""Compare two rows of a table on the same images: two defenses, or two attacks on one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.caveats import caveats, caveats_of_frame
from bench.analysis.comparison import Comparison
from bench.analysis.frames import results_of
from bench.analysis.results import Results
from bench.analysis.rows import SETTING, grouped
from bench.analysis.same_data import check_same_data
from bench.analysis.sides import Side, incomparable, parsed, sides_of
from bench.stats.bootstrap import Interval, over_trainings
from bench.stats.paired import paired_difference
from defenses.utils.errors import UserError

RESAMPLES = 10_000  # of the bootstrap over several trainings


def compare(
    source: str | Path | pd.DataFrame,
    a: str,
    b: str,
    *,
    other: str | Path | pd.DataFrame | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Comparison]:
    """Compare two rows of results on the same images, in every setting that has both.

    The difference has Bonett and Price's interval over images (`bench.stats.paired.paired_difference`); the variance
    of draws is in the shares. If a side has several trainings, a bootstrap varies these too (`bench.stats.bootstrap`),
    unless all images and trainings agree.

    Args:
        source: the results folder, or a frame of `load_results` or `benchmark`.
        a: a row: "adp" (its worst case), "adp@autoattack:rand" (one attack), "adp@autoattack:rand (bpda)" (one view of
            several), "adp@none" (clean images).
        b: another row.
        other: the results folder or frame of b. Default: `source`.
        confidence: in (0, 1).
        seed: of the bootstrap over several trainings.
        resamples: number of resamples of that bootstrap.

    Returns:
        A comparison per setting; printed, it is what `purebench compare` prints.

    Raises:
        UserError: unknown row, or rows that do not compare: other images, threat, draws, budget or data.
    """
    results_a = results_of(source)
    results_b = results_a if other is None else results_of(other)
    if a == b and other is None:
        raise UserError(f'"{a}" is compared with itself; name another defense or attack')
    first, second = ({side.setting: side for side in sides_of(r, name)} for r, name in ((results_a, a), (results_b, b)))
    settings = [setting for setting in first if setting in second]
    if not settings:
        of_a, of_b = (next(iter(sides.values())).where for sides in (first, second))
        raise UserError(f"{a} was judged on {of_a} and {b} on {of_b}; compare rows of one setting")
    if other is not None:
        check_same_data(source, other, settings)
    planned = {
        tuple(group.rows[0].names[n] for n in SETTING): group.rows[0].planned
        for seeds in grouped(results_a)
        for group in seeds
    }
    texts = [*_caveats(source, results_a, a), *_caveats(source if other is None else other, results_b, b)]
    comparisons = []
    for setting in settings:
        left, right = first[setting], second[setting]
        if problem := incomparable(left, right):
            raise UserError(problem)
        comparison = compared(
            left, right, planned=planned[setting], confidence=confidence, seed=seed, resamples=resamples
        )
        comparisons.append(replace(comparison, confidence=confidence, caveats=tuple(dict.fromkeys(texts))))
    return comparisons


def _caveats(source: str | Path | pd.DataFrame, results: Results, name: str) -> list[str]:
    defense, _ = parsed(name, list(dict.fromkeys(results.cells["defense"])))
    if isinstance(source, pd.DataFrame):
        return caveats_of_frame(source).get(defense, [])
    return caveats(Path(source), results).get(defense, [])


def compared(
    a: Side, b: Side, *, planned: int, confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Comparison:
    """Return the comparison of two rows that compare (`bench.analysis.sides.incomparable`), see `compare`."""
    decisions, both, alike = None, 0, False
    if a.decisions is not None and b.decisions is not None:
        alike = all(np.array_equal(x, y) for x, y in ((a.decisions, a.shares[0]), (b.decisions, b.shares[0])))
        decisions = paired_difference(a.decisions, b.decisions, confidence=confidence)
        both = int((a.decisions & b.decisions).sum())
    if len(a.shares) > 1 or len(b.shares) > 1:
        interval = over_trainings(a.shares, b.shares, confidence=confidence, seed=seed, resamples=resamples)
        if not np.isnan(interval.low):  # else all images and trainings agree, which has width only as below
            interval = replace(interval, low=max(-1.0, interval.low), high=min(1.0, interval.high))
            return Comparison(a, b, planned, interval, "images resampled, trainings by Student's t", decisions, both)
    found = decisions if alike else None
    shares = found or paired_difference(a.shares.mean(0), b.shares.mean(0), confidence=confidence)
    interval = Interval(shares.difference, shares.low, shares.high, shares.n)
    return Comparison(a, b, planned, interval, "Bonett and Price, paired images", decisions, both)
