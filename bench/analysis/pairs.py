"""Paired comparisons of all defenses of a results folder, as a frame."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.columns import with_columns
from bench.analysis.compare import compared
from bench.analysis.public_names import public
from bench.analysis.results import Results, read_results
from bench.analysis.rows import SETTING, grouped
from bench.analysis.sides import Side, incomparable, worst_side

_COLUMNS = {
    **dict.fromkeys((*SETTING, "a", "b"), "str"),
    **dict.fromkeys(("difference", "low", "high", "only_a", "only_b", "p_value"), "float64"),
    "n": "int64",
    "status": "str",
}


@with_columns
def pairs(results: str | Path | Results, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return the comparison of the worst cases of every two defenses, on the same images.

    Args:
        results: a results folder, or the result of `read_results`.
        confidence: of each interval, in (0, 1); nothing corrects for the number of pairs.

    Returns:
        A row per setting and pair of defenses with a worst case, in board order, with the numbers of
        `purebench compare`. A pair that does not compare has n = 0 and NaN; of several trainings `only_a`, `only_b` and
        `p_value` are NaN. Columns: those of `purebench columns pairs`.

    Raises:
        UserError: no results there, a damaged file, or an image with several verdicts in one row.
    """
    read = results if isinstance(results, Results) else read_results(results)
    rows = [
        [*setting, a, b, *numbers_of(of_a, of_b, confidence)]
        for setting, members in worst_sides(read).items()
        for (a, of_a), (b, of_b) in combinations(members.items(), 2)
    ]
    return public(pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS))


def worst_sides(results: Results) -> dict[tuple[object, ...], dict[str, Side]]:
    """Return the worst cases of the defenses of each setting by label, in board order."""
    sides: dict[tuple[object, ...], dict[str, Side]] = {}
    for seeds in grouped(results):
        side = worst_side(seeds)
        if side is not None:
            sides.setdefault(side.setting, {})[str(seeds[0].rows[0].names["defense"])] = side
    return sides


def numbers_of(a: Side, b: Side, confidence: float = 0.95) -> list[Any]:
    """Return the columns of a pair in `pairs` from "difference" on."""
    if reason := incomparable(a, b):
        return [*[float("nan")] * 6, 0, reason]
    comparison = compared(a, b, planned=len(a.index), confidence=confidence)
    difference, decided = comparison.difference, comparison.decisions
    counts = [float("nan")] * 3 if decided is None else [decided.only_a, decided.only_b, decided.p_value]
    return [difference.value, difference.low, difference.high, *counts, difference.n, "ok"]
