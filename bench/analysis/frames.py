"""A frame of records, or a part of it, in place of a results folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.public_names import stored
from bench.analysis.results import CELL_COLUMNS, RECORD_COLUMNS, Results, read_results
from defenses.utils.errors import UserError

_SUMS = {"forwards": "forwards", "backwards": "backwards", "queries": "queries", "seconds": "seconds_attack"}
_DERIVED = ("accuracy", "clean", "null", "success", "majority", "mean_logit", "newly_wrong", "margin_sel")
FolderOrFrame = str | Path | pd.DataFrame | Results


def results_of(source: FolderOrFrame) -> Results:
    """Return the cells and records that tables need.

    Args:
        source: a results folder; the frame of `load_results` or `benchmark`, or rows of it; or the result of
            `read_results`. A frame has no rows of cells that were not run: what it lacks counts as not planned.

    Raises:
        UserError: no results there, a damaged file, or a frame without a column that is needed.
    """
    if isinstance(source, Results):
        return source
    return _of_frame(stored(source)) if isinstance(source, pd.DataFrame) else read_results(source)


def _of_frame(frame: pd.DataFrame) -> Results:
    wanted = ["cell", *CELL_COLUMNS, *RECORD_COLUMNS, *_DERIVED, *_SUMS]
    if missing := [name for name in wanted if name not in frame and not name.startswith("majority_")]:
        raise UserError(f'the frame has no column "{missing[0]}"; give rows of what benchmark or load_results returns')
    rows = frame.reset_index(drop=True).assign(at=pd.factorize(frame["cell"])[0].astype(np.int32))
    rows = rows.sort_values("at", kind="stable", ignore_index=True)
    cells = rows.groupby("at", sort=True)
    first = cells.first()
    of_cells = first[list(CELL_COLUMNS)].assign(
        key=first["cell"],
        images=cells["index"].agg(lambda index: int((index >= 0).sum())),
        draws=cells["draws"].max(),
        status=cells["status"].agg(lambda status: status.iloc[0] if status.nunique() == 1 else "ok"),
        error=cells["error"].first(),
        **{column: cells[name].sum(min_count=1) for name, column in _SUMS.items()},
    )
    failed = of_cells["status"].isin(["error", "unsupported"]).to_numpy()[rows["at"].to_numpy()]
    norms = [norm.lower() for norm in frame["norm"].unique()]
    names = ["cell", *(n for n in RECORD_COLUMNS if n in rows), *norms, "at", *_DERIVED]
    records = rows.loc[~(failed & (rows["draws"] == 0).to_numpy()), names].reset_index(drop=True)
    return Results(of_cells.reset_index(drop=True), records)
