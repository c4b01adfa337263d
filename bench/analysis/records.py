"""Read the records of a results folder in table order, and derive accuracy and success per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.spec.cell import KNOWN, NULLS
from bench.store.parts import RECORDS
from bench.store.reader import TEXTS
from defenses.utils.arrays import F64, I64

if TYPE_CHECKING:
    from bench.store.reader import Part

CLEAN, NULL = NULLS  # clean images, uniform noise in the ball
CLEANS = (CLEAN, f"{CLEAN}{KNOWN}")  # clean images under secret draws, and under a known seed
# Cells that agree in these columns share clean images and draws.
IMAGES = ("defense", "training_seed", "seed_known", "dataset", "split", "indices")
_COLUMNS = (
    *("cell", "index", "sha", "label", "target", "correct", "draws", "correct_sel", "draws_sel", "hits", "hits_sel"),
    *("rejected", "margin", "linf", "l2", "l1", "l0", "in_box", "in_ball", "finite", "beyond", "queries", "forwards"),
    *("backwards", "seconds", "status", "error"),
)
_COUNTS = ("correct", "draws", "correct_sel", "draws_sel", "hits", "hits_sel", "rejected")


def group_numbers(cells: pd.DataFrame, by: Sequence[str]) -> I64:
    """Return a number per cell, int64 [cells], equal for cells that agree in all columns of `by`."""
    codes: I64 = np.asarray(cells.groupby(list(by), sort=False).ngroup(), np.int64)
    return codes


class Lookup:
    """Find rows by integer keys; the first row counts where several have the same key.

    Args:
        keys: key of each row, int64 [rows].
    """

    _first: I64 | None

    def __init__(self, keys: I64):
        self._keys, self._first = keys, None
        if not (np.diff(keys) > 0).all():
            self._keys, self._first = np.unique(keys, return_index=True)

    def __call__(self, keys: I64) -> I64:
        """Return the row of each key; -1 where there is none."""
        begin = int(np.searchsorted(self._keys, keys[0])) if len(keys) else 0
        if np.array_equal(keys, self._keys[begin : begin + len(keys)]):  # one stretch: most often so
            at = np.arange(begin, begin + len(keys))
        elif not len(self._keys):
            return np.full(len(keys), -1)
        else:
            at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            at = np.where(self._keys[at] == keys, at, -1)
        return at if self._first is None else np.where(at < 0, -1, self._first[at])

    def values(self, keys: I64, column: F64) -> F64:
        """Return for each key the value of a column in its row; NaN where there is none."""
        at = self(keys)
        return np.where(at < 0, np.nan, column[at]) if len(column) else np.full(len(keys), np.nan)


def read_records(parts: Sequence[Part], columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read the records, in table order.

    Args:
        parts: parts of a results folder.
        columns: columns to read; empty: all.

    Returns:
        The columns, and "at", int32: the position of the row's cell. Texts that repeat are categories if `columns`
        names them.

    Raises:
        UserError: a file cannot be read.
    """
    tables = [t for t in (part.table(RECORDS, columns) for part in parts) if t is not None and len(t)]
    if not tables:
        return pd.DataFrame(columns=[*(columns or _COLUMNS), "at"]).astype({"at": "int32", "index": "int32"})
    tables.sort(key=lambda t: int(t["at"][0].as_py()))
    # Parts of older versions may lack columns; labels are int32 where they are above int16.
    whole = pa.concat_tables(tables, promote_options="permissive").unify_dictionaries()
    if not columns:
        whole = whole.cast(pa.schema([f.with_type(pa.string()) if f.name in TEXTS else f for f in whole.schema]))
    frame: pd.DataFrame = whole.to_pandas(split_blocks=True)
    if not columns or "hits_sel" in columns:
        frame["hits_sel"] = frame["hits_sel"].fillna(0).astype("int32") if "hits_sel" in frame else np.int32(0)
    at = frame["at"].to_numpy()
    if (np.diff(at) < 0).any():
        frame = frame.iloc[np.argsort(at, kind="stable")].reset_index(drop=True)
    return frame


def with_failed(cells: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Return the records with one without draws for every image of a failed cell, in table order."""
    block, image = ["dataset", "split", "indices", "block"], ["index", "sha", "label"]
    cells = cells.assign(at=np.arange(len(cells), dtype=np.int32))
    failed = cells.loc[cells["status"].isin(["error", "unsupported"]), ["key", "at", *block, "status", "error"]]
    if failed.empty:
        return records
    images = records[["at", *image]].merge(cells[["at", *block]].drop_duplicates("at"), on="at").drop(columns="at")
    rows = failed.merge(images.drop_duplicates([*block, "index"]), on=block, how="left")
    rows = rows.rename(columns={"key": "cell"}).fillna({"index": -1, "sha": "", "label": -1}).assign(target=-1)
    rows = rows.reindex(columns=records.columns)
    rows[[*_COUNTS, "in_box", "in_ball", "finite", "beyond"]] = 0
    whole = pd.concat([records, rows.astype(records.dtypes.to_dict())], ignore_index=True)
    return whole.sort_values("at", kind="stable", ignore_index=True)


def with_correctness(cells: pd.DataFrame, records: pd.DataFrame) -> dict[str, Any]:
    """Return the columns accuracy, clean, null and success of the records, see `load_results`; float64 [records]."""
    at, n = records["at"].to_numpy(), records["draws"].to_numpy(np.float64)
    judged = (records["status"] == "ok").to_numpy() & (n > 0)
    draws = np.where(judged, n, np.nan)
    accuracy = records["correct"].to_numpy(np.float64) / draws
    index = records["index"].to_numpy(np.int64)
    columns = {"accuracy": accuracy}
    for name, label, by in (("clean", CLEAN, IMAGES), ("null", NULL, (*IMAGES, "norm", "eps"))):
        keys = (group_numbers(cells, by)[at] << 32) + index
        source = np.flatnonzero(cells["attack"].isin([label, f"{label}{KNOWN}"]).to_numpy()[at] & judged)
        columns[name] = Lookup(keys[source]).values(keys, accuracy[source])
    wrong = 1 - accuracy - records["rejected"].to_numpy(np.float64) / draws
    hits = records["hits"].to_numpy(np.float64) / draws
    untargeted = (cells["targets"] == "none").to_numpy()[at]
    columns["success"] = np.maximum(np.where(untargeted, wrong, hits), 0)
    return columns
