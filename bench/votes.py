"""Votes of an image's draws, counted straight from Arrow columns: a full board has millions of draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.stats import majority, mean_logit

if TYPE_CHECKING:
    import pandas as pd

_IMAGES = 4096  # per pass (memory)


def _keys(table: Any, position: dict[str, int]) -> npt.NDArray[np.int64]:
    """One number per row that stands for (cell, index)."""
    import pyarrow as pa

    encoded = table["cell"].cast(pa.string()).combine_chunks().dictionary_encode()
    codes = np.array([position.setdefault(c, len(position)) for c in encoded.dictionary.to_pylist()], np.int64)
    cells = codes[encoded.indices.to_numpy(zero_copy_only=False)] if len(codes) else np.zeros(0, np.int64)
    out: npt.NDArray[np.int64] = (cells << 32) + table["index"].to_numpy().astype(np.int64)
    return out


def _logits(draws: Any) -> npt.NDArray[np.float16] | None:
    """[rows, K]; None when not all logits of a draw are stored."""
    if "logits" not in draws.column_names or "classes" in draws.column_names or draws["logits"].null_count:
        return None
    flat = draws["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if not len(draws) or len(flat) % len(draws):
        return None
    out: npt.NDArray[np.float16] = flat.reshape(len(draws), -1)
    return out


def votes_of(records: Any, draws: Any) -> dict[str, Any]:
    """The votes of one part.

    Args:
        records: Arrow table with cell, index, label.
        draws: Arrow table with cell, index, held_out, pred, rejected and logits.

    Returns:
        Columns: cell, index, majority, mean_logit (see `bench.results.Results`).
    """
    draws = draws.filter(draws["held_out"]).combine_chunks()
    position: dict[str, int] = {}
    known, keys = _keys(records, position), _keys(draws, position)
    order = np.argsort(known)
    labels, known = records["label"].to_numpy()[order].astype(np.int64), known[order]
    rows = np.argsort(keys, kind="stable")
    groups, start, count = np.unique(keys[rows], return_index=True, return_counts=True)
    label = labels[np.searchsorted(known, groups)] if len(groups) else np.zeros(0, np.int64)
    # A refusal is a class of its own.
    pred = np.where(draws["rejected"].to_numpy(), -1, draws["pred"].to_numpy())
    logits = _logits(draws)
    by_vote, by_mean = np.full(len(groups), np.nan), np.full(len(groups), np.nan)
    for size in np.unique(count):
        same = np.flatnonzero(count == size)
        for at in np.split(same, range(_IMAGES, len(same), _IMAGES)):
            members = rows[start[at][:, None] + np.arange(size)]
            by_vote[at] = majority(pred[members], label[at])
            if logits is not None:
                by_mean[at] = mean_logit(logits[members], label[at])
    names = np.array(list(position) or [""], dtype=object)
    return {"cell": names[groups >> 32], "index": groups & 0xFFFFFFFF, "majority": by_vote, "mean_logit": by_mean}


def vote_frame(parts: Iterable[tuple[Any, Any]]) -> pd.DataFrame:
    """The votes of all parts, given as pairs of records and draws; see `bench.results.Results`."""
    import pandas as pd

    columns = {"cell": "str", "index": "int64", "majority": "float64", "mean_logit": "float64"}
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    frames = [pd.DataFrame(votes_of(records, draws)).astype(columns) for records, draws in parts]
    return pd.concat(frames, ignore_index=True) if frames else empty
