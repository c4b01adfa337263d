"""Rank ranges: which ranks of defenses the images can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.analysis.columns import with_columns
from bench.analysis.compare import RESAMPLES
from bench.analysis.results import Results
from bench.analysis.rows import SETTING, grouped
from bench.analysis.sides import Side, incomparable, worst_side
from bench.stats.bootstrap import all_over_trainings
from bench.stats.paired import all_paired_differences

if TYPE_CHECKING:
    from defenses.utils.arrays import F64, I64

Correction = Literal["bonferroni", "none"]
RankRanges = Mapping[tuple[object, ...], Mapping[str, tuple[int, int]]]
"""(Best rank, worst rank) by setting and label of the defense."""


@with_columns
def rank_ranges(
    values: npt.ArrayLike | pd.DataFrame, *, confidence: float = 0.95, correction: Correction = "bonferroni"
) -> pd.DataFrame:
    """Return the range of ranks of each defense that the images do not exclude; rank 1 is the highest mean.

    A defense is worse than another one where the whole interval of their paired difference over images lies below 0
    (`bench.stats.paired.paired_difference`). Each range is a confidence set for the rank of its own row; that all
    ranges hold at once is less sure.

    Args:
        values: share of right draws per image and defense, [images, defenses] in [0, 1]; a frame's columns name the
            defenses. `worst_per_image(...).pivot(index="image", columns="defense", values="robust")` gives one.
        confidence: of each range, in (0, 1).
        correction: "bonferroni" divides the error over the comparisons of a row, so that its range has the confidence;
            "none" gives it to each comparison.

    Returns:
        A row per defense in the order of `values`. Columns: those of `purebench columns rank_ranges`.

    Raises:
        ValueError: NaN, a share outside [0, 1], no image, or another confidence or correction.
    """
    shares = np.asarray(values, float)
    count = shares.shape[1] if shares.ndim == 2 else 1  # other shapes are refused below
    level = _confidence_of_each(confidence, count, correction)
    _, low, high = all_paired_differences(shares, confidence=level)
    best, worst = _ranges(low, high)
    names = values.columns if isinstance(values, pd.DataFrame) else range(count)
    return pd.DataFrame({"defense": names, "share": shares.mean(0), "rank_low": best, "rank_high": worst})


def _confidence_of_each(confidence: float, defenses: int, correction: Correction) -> float:
    """Return the confidence of each of the comparisons of one row."""
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence is {confidence}; it must lie between 0 and 1")
    if correction not in ("bonferroni", "none"):
        raise ValueError(f'the correction is "{correction}"; it must be "bonferroni" or "none"')
    return 1 - (1 - confidence) / (max(1, defenses - 1) if correction == "bonferroni" else 1)


def _ranges(low: F64, high: F64) -> tuple[I64, I64]:
    """Return (best rank, worst rank) of each row from the ends of its differences to the columns, [rows, rows]."""
    worse_than, better_than = (high < 0).sum(1), (low > 0).sum(1)
    return 1 + worse_than, len(low) - better_than


def rank_ranges_of(sides: Sequence[Side], *, confidence: float = 0.95) -> list[tuple[int, int]]:
    """Return the range of ranks of each worst case among those of one setting, see `rank_ranges`.

    Rows that do not compare (other images, draws or budget) are not told apart. Where one of two rows is a mean over
    several trainings, their interval varies the trainings too (`bench.stats.bootstrap.all_over_trainings`).

    Args:
        sides: worst cases of one setting.
        confidence: of each range, in (0, 1).

    Returns:
        (best rank, worst rank) of each.
    """
    level = _confidence_of_each(confidence, len(sides), "bonferroni")
    low, high = (np.full((len(sides), len(sides)), end) for end in (-1.0, 1.0))
    for group in _of_same_images(sides):
        at = np.ix_(group, group)
        low[at], high[at] = _intervals([sides[i].shares for i in group], level)
    for (i, a), (j, b) in combinations(enumerate(sides), 2):
        if incomparable(a, b):
            low[[i, j], [j, i]], high[[i, j], [j, i]] = -1, 1
    return [(int(a), int(b)) for a, b in zip(*_ranges(low, high), strict=True)]


def _intervals(shares: Sequence[F64], confidence: float) -> tuple[F64, F64]:
    """Return the ends of the differences of all pairs of defenses, of shares per training and image."""
    _, low, high = all_paired_differences(np.stack([s.mean(0) for s in shares], axis=1), confidence=confidence)
    several = np.array([len(s) > 1 for s in shares])
    if several.any():
        varied = all_over_trainings(shares, confidence=confidence, resamples=RESAMPLES)
        pairs = (several[:, None] | several) & ~np.isnan(varied[0])  # NaN: nothing varies but by the choice of images
        low, high = (
            np.where(pairs, of_trainings, ends) for of_trainings, ends in zip(varied, (low, high), strict=True)
        )
    return low, high


def rank_ranges_of_summary(results: Results, frame: pd.DataFrame) -> RankRanges:
    """Return the 95% range of ranks of the defenses that have a rank, by setting and label, the best first.

    Args:
        results: see `bench.analysis.results.read_results`.
        frame: their summary.
    """
    ranked = frame[frame["strict_rank"].notna()].sort_values("strict_rank", kind="stable")
    order = {row: at for at, row in enumerate(ranked[[*SETTING, "defense"]].itertuples(index=False, name=None))}
    sides: dict[tuple[object, ...], list[tuple[int, str, Side]]] = {}
    for seeds in grouped(results):
        names = seeds[0].rows[0].names
        at = order.get(tuple(names[name] for name in (*SETTING, "defense")))
        side = None if at is None else worst_side(seeds)
        if at is not None and side is not None:
            sides.setdefault(side.setting, []).append((at, str(names["defense"]), side))
    ranges = {}
    for setting, members in sides.items():
        members.sort(key=lambda member: member[0])
        found = rank_ranges_of([side for *_, side in members])
        ranges[setting] = {label: pair for (_, label, _), pair in zip(members, found, strict=True)}
    return ranges


def _of_same_images(sides: Sequence[Side]) -> list[list[int]]:
    """Return the positions of the rows that have verdicts of the same images."""
    groups: dict[bytes, list[int]] = {}
    for i, side in enumerate(sides):
        groups.setdefault(side.index.tobytes(), []).append(i)
    return list(groups.values())
