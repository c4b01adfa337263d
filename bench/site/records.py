"""Rows of data frames as mappings, for templates."""

from __future__ import annotations

from typing import Any

import pandas as pd

Records = list[dict[str, Any]]


def records(frame: pd.DataFrame) -> Records:
    """Return the rows of a frame; what is missing is None."""
    columns = [
        [None if value is pd.NA or value != value else value for value in frame[name].tolist()] for name in frame
    ]
    names = [str(name) for name in frame]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def by(column: str, rows: Records) -> dict[str, Records]:
    """Return rows by the text of one of their columns."""
    found: dict[str, Records] = {}
    for row in rows:
        found.setdefault(str(row[column]), []).append(row)
    return found
