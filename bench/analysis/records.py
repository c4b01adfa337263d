"""Records of a results folder in table order, with what follows from them image by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.spec.cell import KNOWN, NULLS
from bench.store.parts import RECORDS
from bench.store.reader import TEXTS
from defenses.utils.arrays import F64, I64

if TYPE_CHECKING:
    import pandas as pd

    from bench.store.reader import Part

CLEAN, NULL = NULLS  # clean images, uniform noise in the ball
CLEANS = (CLEAN, f"{CLEAN}{KNOWN}")  # clean images under draws that nobody knows, and under a known one
# Cells that share these share clean images and draws.
IMAGES = ("defense", "training_seed", "seed_known", "dataset", "split", "indices")
_COLUMNS = (
    *("cell", "index", "sha", "label", "target", "correct", "draws", "correct_sel", "draws_sel", "hits", "hits_sel"),
    *("rejected", "margin", "linf", "l2", "l1", "l0", "in_box", "in_ball", "finite", "beyond", "queries", "forwards"),
    *("backwards", "seconds", "status", "error"),
)
_COUNTS = ("correct", "draws", "correct_sel", "draws_sel", "hits", "hits_sel", "rejected")


def owners(cells: pd.DataFrame, by: Sequence[str]) -> I64:
    """A number per cell; cells that agree in all columns of `by` share it."""
    codes: I64 = np.asarray(cells.groupby(list(by), sort=False).ngroup(), np.int64)
    return codes


class Lookup:
    """Finds rows by whole numbers, of which the first row counts where several have the same one.

    Args:
        keys: int64.
    """

    _first: I64 | None

    def __init__(self, keys: I64):
        self._keys, self._first = keys, None
        if not (np.diff(keys) > 0).all():
            self._keys, self._first = np.unique(keys, return_index=True)

    def __call__(self, wanted: I64) -> I64:
        """The row of each number; -1 where there is none."""
        if np.array_equal(wanted, self._keys):
            at = np.arange(len(wanted))
        elif not len(self._keys):
            return np.full(len(wanted), -1)
        else:
            at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
            at = np.where(self._keys[at] == wanted, at, -1)
        return at if self._first is None else np.where(at < 0, -1, self._first[at])

    def values(self, wanted: I64, of: F64) -> F64:
        """For each number what `of` has in its row; NaN where there is none."""
        at = self(wanted)
        return np.where(at < 0, np.nan, of[at]) if len(of) else np.full(len(wanted), np.nan)


def read_records(parts: Sequence[Part], columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """The records, in table order.

    Args:
        parts: of a results folder.
        columns: to read. None named: all.

    Returns:
        The columns, and "at", int32: the position of the row's cell. Texts that repeat are categories when `columns`
        names them.

    Raises:
        UserError: a file cannot be read.
    """
    import pandas as pd
    import pyarrow as pa

    tables = [t for t in (part.table(RECORDS, columns) for part in parts) if t is not None and len(t)]
    if not tables:
        return pd.DataFrame(columns=[*(columns or _COLUMNS), "at"]).astype({"at": "int32", "index": "int32"})
    tables.sort(key=lambda t: int(t["at"][0].as_py()))
    # Parts of older versions may lack columns.
    whole = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
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
    """The records, and for every cell that failed one of no draws per image; in table order."""
    import pandas as pd

    block, image = ["dataset", "split", "indices", "block"], ["index", "sha", "label"]
    cells = cells.assign(at=np.arange(len(cells), dtype=np.int32))
    lost = cells.loc[cells["status"].isin(["error", "unsupported"]), ["key", "at", *block, "status", "error"]]
    if lost.empty:
        return records
    known = records[["at", *image]].merge(cells[["at", *block]].drop_duplicates("at"), on="at").drop(columns="at")
    rows = lost.merge(known.drop_duplicates([*block, "index"]), on=block, how="left")
    rows = rows.rename(columns={"key": "cell"}).fillna({"index": -1, "sha": "", "label": -1}).assign(target=-1)
    rows = rows.reindex(columns=records.columns)
    rows[[*_COUNTS, "in_box", "in_ball", "finite", "beyond"]] = 0
    whole = pd.concat([records, rows.astype(records.dtypes.to_dict())], ignore_index=True)
    return whole.sort_values("at", kind="stable", ignore_index=True)


def with_correctness(cells: pd.DataFrame, records: pd.DataFrame) -> dict[str, Any]:
    """What follows from the records: columns accuracy, clean, null and success, as `load_results` tells them."""
    at, n = records["at"].to_numpy(), records["draws"].to_numpy(np.float64)
    judged = (records["status"] == "ok").to_numpy() & (n > 0)
    draws = np.where(judged, n, np.nan)
    accuracy = records["correct"].to_numpy(np.float64) / draws
    index = records["index"].to_numpy(np.int64)
    found = {"accuracy": accuracy}
    for name, label, by in (("clean", CLEAN, IMAGES), ("null", NULL, (*IMAGES, "norm", "eps"))):
        keys = (owners(cells, by)[at] << 32) + index
        source = np.flatnonzero(cells["attack"].isin([label, f"{label}{KNOWN}"]).to_numpy()[at] & judged)
        found[name] = Lookup(keys[source]).values(keys, accuracy[source])
    wrong = 1 - accuracy - records["rejected"].to_numpy(np.float64) / draws
    hits = records["hits"].to_numpy(np.float64) / draws
    plain = (cells["targets"] == "none").to_numpy()[at]
    found["success"] = np.maximum(np.where(plain, wrong, hits), 0)
    return found
