"""Forward passes of one prediction of a defense, from the verdicts on clean images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.analysis.records import CLEAN


def passes_of(cells: pd.DataFrame, records: pd.DataFrame) -> float:
    """Return the forward passes of one prediction, from the verdicts on clean images; NaN if not counted.

    The further draws of a sequential rule are predictions too.

    Args:
        cells: of one defense, rows of `bench.analysis.results.Results.cells` with their positions as index.
        records: all records of the same results.
    """
    clean = cells[(cells["attack"] == CLEAN) & (cells["status"] == "ok")]
    if "forwards_verdict" not in clean or not len(clean):
        return float("nan")
    predictions = float((clean["images"] * (clean["draws"] + clean["selection"])).sum())
    if "majority_draws" in records:
        judged = records[records["at"].isin(clean.index)]
        further = judged["majority_draws"].to_numpy(float) - judged["draws"].to_numpy(float)
        predictions += float(np.nansum(np.maximum(further, 0)))
    return float(clean["forwards_verdict"].sum() / predictions) or float("nan")
