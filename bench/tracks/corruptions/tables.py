"""Tables of accuracy under corruptions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.columns import with_columns
from bench.report.format import ABSENT, interval
from bench.report.plain import to_csv, to_markdown
from bench.report.table import Table
from bench.stats.proportions import wilson
from bench.store.jsonl import read
from bench.store.kinds import folder_named, refuse_other_kind
from bench.tracks.corruptions.run import CLEAN, KEPT_NOTE
from defenses.utils.errors import UserError
from defenses.utils.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = {
    **dict.fromkeys(("defense", "corruption", "severity"), "str"),
    **dict.fromkeys(("images", "draws"), "int64"),
    **dict.fromkeys(("accuracy", "low", "high", "rejected"), "float64"),
}


@with_columns
def load_corruptions(path: str | Path) -> pd.DataFrame:
    """Read the accuracy of every defense on every corrupted set of a folder of `purebench corruptions`.

    Args:
        path: the folder.

    Returns:
        A row per defense, corruption and severity, and of the means over severities and over all sets; these are NaN
        where a defense lacks sets that another one has.
        Columns: those of `purebench columns load_corruptions`.

    Raises:
        UserError: results of another kind or none, or a damaged file.
    """
    import pandas as pd

    folder = folder_named(path)
    refuse_other_kind(folder, "load_corruptions")
    return pd.DataFrame(_rows(folder), columns=list(_COLUMNS)).astype(_COLUMNS)


def _rows(folder: Path) -> list[dict[str, object]]:
    files = [read(path) for path in sorted(folder.glob("*.jsonl"))]
    if not files:
        raise UserError(f"{folder} has no results; run purebench corruptions first")
    out = []
    sets = Counter(group for key in {key for _, entries, _ in files for key in entries} for group in _groups(key))
    for about, entries, _ in files:
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for key, entry in entries.items():
            for group in _groups(key):
                groups.setdefault(group, []).append(entry)
        for (kind, severity), members in groups.items():
            right, rejected = (_mean([m[column] for m in members]) for column in ("right", "rejected"))
            if len(members) < sets[kind, severity]:  # the mean of other defenses is over more
                right, rejected = ([math.nan] * len(right) for _ in range(2))
            low, high = wilson(sum(right), len(right))
            row = {"defense": about["label"], "corruption": kind, "severity": severity}
            row |= {"images": len(right), "draws": about["draws"], "accuracy": sum(right) / len(right)}
            out.append({**row, "low": float(low), "high": float(high), "rejected": sum(rejected) / len(right)})
    return out


def _groups(key: str) -> list[tuple[str, str]]:
    """Return the (corruption, severity) of the rows that a set counts in."""
    kind, severity = key.split("/")
    return [(kind, severity)] if kind == CLEAN else [(kind, severity), (kind, "mean"), ("mean", "mean")]


def _mean(lists: Sequence[Sequence[float]]) -> list[float]:
    """Return the means over sets, image by image: all sets have the same images."""
    return [sum(values) / len(values) for values in zip(*lists, strict=True)]


def tables(rows: Sequence[Mapping[Any, Any]], title: str) -> list[Table]:
    """Return a table of means over severities, defenses side by side, and for each defense one by severity.

    Args:
        rows: of `load_corruptions`.
        title: beginning of every title.
    """
    labels = list(dict.fromkeys(row["defense"] for row in rows))
    kinds = [k for k in dict.fromkeys(row["corruption"] for row in rows) if k != "mean"] + ["mean"]
    cells = {
        (r["defense"], r["corruption"], r["severity"]): interval(r["accuracy"], r["low"], r["high"], 1) for r in rows
    }
    notes = [f"accuracy in percent on {rows[0]['images']} images; intervals: Wilson, 95%, over images."]
    if any(row["rejected"] > 0 for row in rows):
        notes.append("images that a defense refuses count as wrong.")
    if any(math.isnan(row["accuracy"]) for row in rows):
        notes.append(f"{ABSENT}: no mean, over fewer sets than that of another defense.")
    result = [
        Table(
            f"{title}: mean over severities",
            ("corruption", *labels),
            tuple((k, *(cells.get((d, k, "0" if k == CLEAN else "mean"), "") for d in labels)) for k in kinds),
            tuple(notes),
        )
    ]
    severities = sorted({row["severity"] for row in rows} - {"0", "mean"})
    for label in labels:
        lines = [(k, *(cells.get((label, k, s), "") for s in (*severities, "mean"))) for k in kinds[:-1] if k != CLEAN]
        result.append(Table(f"{title}: {label}", ("corruption", *severities, "mean"), tuple(lines), tuple(notes)))
    return result


def write(folder: Path, title: str) -> Table:
    """Write tables.md and tables.csv of a folder, and return the first table.

    Raises:
        UserError: as `load_corruptions`; or the folder cannot be written.
    """
    frame = load_corruptions(folder)
    all_tables = tables(frame.to_dict("records"), title)
    write_whole(folder / "tables.md", to_markdown(all_tables), KEPT_NOTE)
    write_whole(folder / "tables.csv", to_csv(frame), KEPT_NOTE)
    return all_tables[0]
