"""Table of `purebench claims`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.analysis.claims import NOT_COMPARABLE, POINTS_LEFT
from bench.report.format import ABSENT, interval, percent, points
from bench.report.plain import to_text
from bench.report.table import Table
from defenses.utils.text import counted

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    *("defense", "attack", "by", "data set", "threat"),
    *("claimed % [95%]", "measured % [95%]", "points left [95%]", "verdict", "why", "seen in"),
)
_NOTES = (
    "[ ]: Wilson 95% over images; refuted: the claim's interval lies above the measured one; not reached: below it",
    "points left [95%]: of the same network here, what the claim's protocol leaves above the full one; not run: the "
    "board has no [[protocol]] of it, or it is not finished",
    "seen in: the paper, its authors' code or logs; secondary: a later table. --json has protocol, source and address",
)


def claims_text(frame: pd.DataFrame, width: int | None) -> str:
    """Return a frame of `bench.claims_table` as text; of re-evaluations that cannot be compared the lowest alone.

    Args:
        frame: the claims.
        width: of the terminal; None: no limit.
    """
    if not len(frame):
        return "no claim is known of these defenses\n"
    shown = frame[_is_shown(frame)]
    hidden = len(frame) - len(shown)
    more = (f"{counted(hidden, 'further re-evaluation')} that cannot be compared: --json",) if hidden else ()
    counts = ", ".join(f"{n} {word}" for word, n in frame["verdict"].value_counts().items())
    texts = []
    for results, rows in shown.groupby("results", sort=False):
        cells = tuple(_cells(row) for row in rows.to_dict("records"))
        texts.append(to_text(Table(f"Claims: {results}", _COLUMNS, cells, left=3, tail=3), width, wrap=True))
    notes = "\n".join((f"{counted(len(frame), 'claim')}: {counts}", *more, *_NOTES))
    return "\n".join((*texts, notes)) + "\n"


def _is_shown(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return True for claims of authors, for all that are comparable, and for the lowest re-evaluation of a threat."""
    single = frame[(frame["kind"] != "claim") & (frame["aggregation"] == "mean")].dropna(subset="claimed_robust")
    lowest = single.groupby(["results", "defense", "dataset", "threat"])["claimed_robust"].idxmin()
    own = (frame["kind"] == "claim") | (frame["verdict"] != NOT_COMPARABLE)
    return own | frame.index.isin(lowest)


def _cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    claimed = interval(*(row[f"claimed_{name}"] for name in ("robust", "low", "high")))
    if row["claimed_low"] != row["claimed_low"]:  # the number of images is not told
        claimed = percent(row["claimed_robust"])
    reason = row["reason"] if row["verdict"] == NOT_COMPARABLE else ""
    return (
        row["defense"],
        row["attack"],
        "authors" if row["kind"] == "claim" else row["paper"],
        row["dataset"],
        row["threat"] or ABSENT,
        claimed,
        interval(*(row[f"measured_{name}"] for name in ("robust", "low", "high"))),
        points(*(row[name] for name in POINTS_LEFT)).replace(ABSENT, "not run"),
        row["verdict"],
        "; ".join(filter(None, (reason, row["note"]))),
        row["evidence"],
    )
