"""Write the frames of a results folder as files for other programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.columns import columns
from bench.analysis.leaderboard import leaderboard
from bench.analysis.results import load_cells, load_draws, load_results
from bench.analysis.summary import summary
from bench.analysis.worst_case import worst_per_image
from bench.report.plain import to_csv
from bench.store.folder import disk_errors, write_atomic
from bench.store.kinds import folder_named
from defenses.utils.errors import UserError, unknown

FORMATS = ("parquet", "csv")
FRAMES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "results": load_results,
    "draws": load_draws,
    "cells": load_cells,
    "worst_per_image": worst_per_image,
    "summary": summary,
    "leaderboard": leaderboard,
}
_ALL = ("results", "cells", "worst_per_image", "summary", "leaderboard")  # draws are large


def export(results: str | Path, out: str | Path, *, form: str = "parquet", only: Collection[str] = ()) -> list[Path]:
    """Write the frames of a results folder, and what their columns mean, as Parquet or CSV.

    In CSV, lists are JSON, and names that a spreadsheet would execute or a terminal obey are made harmless, as in
    tables.csv; Parquet has them as they are.

    Args:
        results: the results folder of a board.
        out: folder of the files: <frame>.parquet or <frame>.csv, and columns.csv, which describes all frames.
        form: "parquet" or "csv".
        only: names of frames, keys of `FRAMES`; empty: all but the draws.

    Returns:
        The files.

    Raises:
        UserError: another format or frame, no results there, a damaged file, or a folder that cannot be written to.
    """
    if form not in FORMATS:
        raise UserError(f'format is "{form}"; it must be parquet or csv')
    for name in only:
        if name not in FRAMES:
            raise unknown("frame", name, FRAMES)
    source, folder = folder_named(results), Path(out)
    frames = {name: _plain(FRAMES[name](source), form) for name in only or _ALL}
    tables = {f"{name}.{form}": frame for name, frame in frames.items()}
    tables["columns.csv"] = columns()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in tables.items():
            write_atomic(folder / name, _as_bytes(frame, name.rpartition(".")[2]))
    return [folder / name for name in tables]


def _plain(frame: pd.DataFrame, form: str) -> pd.DataFrame:
    """Return a frame with columns of one type each."""
    for name in frame:
        if frame[name].map(lambda value: isinstance(value, list | tuple | np.ndarray)).any():
            lists = [list(value) if isinstance(value, list | tuple | np.ndarray) else value for value in frame[name]]
            texts = [json.dumps(value, default=float) if isinstance(value, list) else value for value in lists]
            frame[name] = texts if form == "csv" else lists
    return frame


def _as_bytes(frame: pd.DataFrame, form: str) -> bytes:
    return frame.to_parquet(index=False) if form == "parquet" else to_csv(frame).encode()
