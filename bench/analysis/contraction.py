"""Agreement of a diagnostic of purifiers, their rate of contraction, with the accuracy that attacks leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bench.stats.bootstrap import Interval

if TYPE_CHECKING:
    from defenses.utils.arrays import F64


def contraction_agreement(
    rows: pd.DataFrame, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[Interval, pd.DataFrame]:
    """Return Spearman's correlation of low rates with robust accuracy, and the rows on which the two differ.

    The interval is the percentile bootstrap's over rows, which are few and share data and classifiers, so it is rough.
    Resamples in which all rates or all accuracies are equal have no correlation and are left out.

    Args:
        rows: `defense`; `contraction`: mean rate of `bench.contraction`; `robust`: worst-case accuracy in [0, 1].
        confidence: in (0, 1).
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        The correlation of -contraction and robust, positive where purifiers that contract more are more robust, NaN
        where one of them is equal in all rows; and `rows` with
        `says`: "robust, and broken" (a rate below the median of rows, an accuracy below its median), "broken, and
        robust" (both above), or "" (they agree, or one is at its median).

    Raises:
        ValueError: fewer than 3 rows, or NaN.
    """
    rates, robust = rows["contraction"].to_numpy(float), rows["robust"].to_numpy(float)
    if len(rows) < 3 or np.isnan(rates).any() or np.isnan(robust).any():
        raise ValueError("a rank correlation needs at least 3 rows, with a rate and an accuracy each")
    rng = np.random.default_rng(seed)
    at = rng.integers(len(rows), size=(resamples, len(rows)))
    if np.ptp(rates) == 0 or np.ptp(robust) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), len(rows)), rows.assign(says="")
    values = np.array([_spearman(-rates[i], robust[i]) for i in at])
    ends = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    low_rate, high_rate = rates < np.median(rates), rates > np.median(rates)
    broken, survives = robust < np.median(robust), robust > np.median(robust)
    says = np.select([low_rate & broken, high_rate & survives], ["robust, and broken", "broken, and robust"], "")
    return Interval(_spearman(-rates, robust), float(ends[0]), float(ends[1]), len(rows)), rows.assign(says=says)


def _spearman(a: F64, b: F64) -> float:
    """Return the correlation of ranks, ties with their mean; NaN where one side is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    first, second = (pd.Series(values).rank().to_numpy(float) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])
