"""Read a results folder into pandas; `bench.store.folder` documents its layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.columns import with_columns
from bench.analysis.draws import JudgedImages, clean_draws, votes
from bench.analysis.public_names import public
from bench.analysis.records import (
    CLEAN,
    CLEANS,
    IMAGES,
    NULL,
    group_numbers,
    read_records,
    with_correctness,
    with_failed,
)
from bench.spec.aggregation import aggregation_of
from bench.store.kinds import folder_named
from bench.store.manifest import read_manifest
from bench.store.parts import DRAWS, CellRecord
from bench.store.reader import Part, read_folder
from defenses.utils.arrays import I64

__all__ = ["CLEAN", "NULL", "Results", "load_cells", "load_draws", "load_results", "read_results"]

CELL_COLUMNS = (
    *("defense", "training_seed", "attack", "view", "gradient", "eot", "runs", "seed_known", "compute"),
    *("dataset", "split", "indices", "block"),
    *("norm", "eps", "targets", "knowledge", "seed", "stochastic", "minimisation", "budget"),
)
_OF_CELL = tuple(n for name in CELL_COLUMNS for n in ((name, "eps_value") if name == "eps" else (name,)))
_HIDDEN = ("identity", "traceback", "sources")  # of lines, no columns
_LINE_COLUMNS = ("key", "images", "draws", "selection", "status", "error", "part")
RECORD_COLUMNS = (  # for tables
    *("index", "label", "target", "correct", "draws", "correct_sel", "draws_sel", "hits", "hits_sel", "rejected"),
    *("in_box", "in_ball", "finite", "beyond", "majority_right", "majority_draws", "status", "error"),
)

_read = partial(read_folder, without=_HIDDEN)


@with_columns
def load_cells(path: str | Path) -> pd.DataFrame:
    """Read the cells of a results folder.

    Args:
        path: the folder.

    Returns:
        A row per cell in table order. Columns: those of `purebench columns load_cells`.

    Raises:
        UserError: no results there, or a damaged file.
    """
    frame: pd.DataFrame = _read(folder_named(path), lambda lines, _: _cell_frame(lines))
    return frame


def _cell_frame(lines: list[CellRecord]) -> pd.DataFrame:
    first = [*_LINE_COLUMNS[:1], *CELL_COLUMNS, *_LINE_COLUMNS[1:]]
    hidden = {*_HIDDEN, *first}
    costs = ["seconds_attack", "seconds_verdict", "forwards", "backwards", "queries"]
    rest = [*costs, *sorted({str(k) for k in set().union(*lines)} - hidden - set(costs))]
    frame = pd.DataFrame(lines, columns=[*first, *rest])
    # Lines of older versions have no training seed; it is 0.
    frame = frame.assign(training_seed=frame["training_seed"].fillna(0).astype("int64"))
    frame = frame.assign(seed_known=frame["seed_known"].eq(True))
    frame = frame.assign(compute=frame["compute"].astype(object).fillna("").astype(str))
    return public(frame.astype({"runs": "Int64"}) if len(frame) else frame)


@with_columns
def load_results(path: str | Path) -> pd.DataFrame:
    """Read the records of a results folder, with their cells.

    Args:
        path: the results folder.

    Returns:
        A row per image and attack. `summary`, `worst_per_image`, `compare` and `table` take the frame, or rows of it,
        in place of the folder. The attacks "none" and "uniform" are the clean images and the noise. Cells of status
        "error" or "unsupported" have rows as well, without draws and with that status and error: one per image, or one
        of image -1 if no other cell has the same images. Columns: those of `purebench columns load_results`.

    Raises:
        UserError: no results there, or a damaged file.
    """
    k = aggregation_of(read_manifest(folder_named(path))).k
    frame: pd.DataFrame = _read(folder_named(path), partial(_result_frame, k=k))
    return frame


def _result_frame(lines: list[CellRecord], parts: list[Part], *, k: int | None) -> pd.DataFrame:
    cells = _cell_frame(lines)
    records = read_records(parts)
    records = with_failed(cells, records.assign(**_of_draws(cells, records, parts, k)))
    frame: pd.DataFrame = pd.concat([_of_cells(cells, records, _OF_CELL), records.drop(columns="at")], axis=1)
    frame = frame.assign(**with_correctness(cells, records))
    frame["succeeded"] = (frame["clean"] > 0.5) & (frame["success"] > 0.5)
    return public(frame)


def _of_cells(cells: pd.DataFrame, rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return columns of the cell of each row."""
    frame: pd.DataFrame = cells[list(columns)].take(rows["at"].to_numpy()).reset_index(drop=True)
    return frame


@with_columns
def load_draws(path: str | Path) -> pd.DataFrame:
    """Read the draws of a results folder.

    Args:
        path: the results folder.

    Returns:
        A row per image, attack and draw. Logits are float16, or float32 in a part with logits under -65,504.
        Columns: those of `purebench columns load_draws`.

    Raises:
        UserError: no results there, or a damaged file.
    """
    frame: pd.DataFrame = _read(folder_named(path), _draw_frame)
    return frame


def _draw_frame(lines: list[CellRecord], parts: list[Part]) -> pd.DataFrame:
    columns = ["cell", "index", "draw", "held_out", "pred", "margin", "rejected", "logits"]
    tables = [t for t in (part.table(DRAWS) for part in parts) if t is not None and len(t)]
    rows = [t.to_pandas().astype({"cell": "str"}) for t in tables] or [pd.DataFrame(columns=[*columns, "at"])]
    draws = pd.concat(rows, ignore_index=True).sort_values("at", kind="stable", ignore_index=True)
    names = ("defense", "training_seed", "attack", "view", "norm", "eps", "eps_value")
    of_cells = _of_cells(_cell_frame(lines), draws.astype({"at": "int32"}), names)
    return public(pd.concat([of_cells, draws.drop(columns="at")], axis=1))


@dataclass(frozen=True, eq=False)
class Results:
    """Cells and records of a results folder, from which tables are computed.

    Args:
        cells: see `load_cells`.
        records: one row per image and finished cell, in table order. "at": position of the cell in `cells`; columns
            of the record as in `load_results` (sizes in the norms of the board only), with accuracy, clean, null and
            success; `majority` and `mean_logit`: 1 if the held-out draws, or the first K of them if the board sets K,
            decide right, else 0 (NaN: unknown), the majority by the sequential rule if there is one; `newly_wrong`:
            number of held-out draws in which the clean image is right and the attack succeeds (NaN without the clean
            image); `margin_sel`: see `bench.analysis.draws.votes`.
    """

    cells: pd.DataFrame
    records: pd.DataFrame

    @cached_property
    def _bounds(self) -> I64:
        """Row of the first record of each cell, and one more entry for the end, int64 [cells + 1]."""
        return np.searchsorted(self.records["at"].to_numpy(), np.arange(len(self.cells) + 1))

    def rows(self, cells: I64) -> slice | I64:
        """Return the rows of the records of some cells, given by position; a slice if they are contiguous."""
        if len(cells) and (np.diff(cells) == 1).all():
            return slice(self._bounds[cells[0]], self._bounds[cells[-1] + 1])
        return np.concatenate([np.zeros(0, np.int64), *(np.arange(*self._bounds[[c, c + 1]]) for c in cells)])


def read_results(path: str | Path, *, k: int | None = None) -> Results:
    """Read the cells and records that tables need.

    Args:
        path: the results folder.
        k: held-out draws of an image, the first ones, that make majority and mean logit, at least 1; None: those of the
            board, of which a sequential rule decides the majority if there is one.

    Raises:
        UserError: no results there, or a damaged file.
    """
    folder = folder_named(path)
    own = aggregation_of(read_manifest(folder)).k if k is None else k
    return _read(folder, partial(_results, k=own, by_rule=k is None))


def _results(lines: list[CellRecord], parts: list[Part], *, k: int | None, by_rule: bool) -> Results:
    cells = _cell_frame(lines)
    records = read_records(parts, (*RECORD_COLUMNS, *(norm.lower() for norm in cells["norm"].unique())))
    columns = _of_draws(cells, records, parts, k, by_rule=by_rule)
    return Results(cells, records.assign(**with_correctness(cells, records), **columns))


def _of_draws(
    cells: pd.DataFrame, records: pd.DataFrame, parts: list[Part], k: int | None, *, by_rule: bool = True
) -> dict[str, Any]:
    """Return the columns of the records that are computed from the draws, see `Results`; `by_rule`: a rule decides."""
    images = JudgedImages.of(records)
    unattacked = cells["attack"].isin(CLEANS).to_numpy()
    single = (cells["draws"].eq(1) & cells["selection"].eq(0)).to_numpy()
    several = frozenset(np.flatnonzero(unattacked & ~single).tolist())
    one = records[(unattacked & single)[records["at"]] & (records["draws"] > 0).to_numpy()]
    of_one = one["at"].to_numpy(np.int64), one["index"].to_numpy(np.int64), one["correct"].to_numpy() > 0
    clean = clean_draws([part.only(several) for part in parts], images, group_numbers(cells, IMAGES), of_one)
    columns = votes(parts, images, clean, (cells["draws"] + cells["selection"]).to_numpy(), k=k)
    if by_rule and "majority_right" in records:
        decided = records["majority_right"].to_numpy(np.float64)
        columns["majority"] = np.where(np.isnan(decided), columns["majority"], decided)
    return columns
