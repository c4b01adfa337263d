"""Data files of a site: its frames as CSV and JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bench.report.plain import to_csv
from bench.site.collect import records
from bench.site.model import Site

if TYPE_CHECKING:
    import pandas as pd

_HELD = {
    "leaderboard": "a row per board, threat and defense: bench.leaderboard",
    "claims": "published accuracies with their verdicts: bench.claims_table",
    "audits": "checks of audits: bench.load_audits",
}


def data_files(site: Site) -> dict[str, str]:
    """Return the data files of a site by path."""
    files = {f"data/{name}.csv": to_csv(_flat(frame)) for name, frame in site.frames.items()}
    if "leaderboard" in site.frames:
        content = {"schema": 1, "rows": records(site.frames["leaderboard"])}
        files["data/leaderboard.json"] = json.dumps(content, indent=1, allow_nan=False) + "\n"
    return files


def about_files(site: Site) -> dict[str, str]:
    """Return what the data files of a site hold, by path."""
    texts = {f"data/{name}.csv": _HELD[name] for name in site.frames}
    if "leaderboard" in site.frames:
        texts["data/leaderboard.json"] = "the same as JSON"
    return texts | {"data/site.json": "results folders, and sha256 of every file of this site"}


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with numbers and lists within a cell as JSON."""
    nested = [name for name in ("numbers", "images") if name in frame]
    return frame.assign(**{name: frame[name].map(_json) for name in nested})


def _json(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, sort_keys=True)
