"""Tables of accuracy under corruptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report.plain import to_csv, to_markdown, to_text
from bench.report.table import Table
from bench.stats.proportions import wilson
from bench.store.jsonl import read
from bench.tracks.corruptions.run import CLEAN, KEPT_NOTE
from defenses.utils.errors import UserError
from defenses.utils.files import write_whole


def frame(folder: Path) -> list[dict[str, Any]]:
    """Return the accuracy of every defense on every corrupted set of a folder, with Wilson's intervals over images.

    Args:
        folder: of results.

    Returns:
        Rows of defense, corruption, severity ("mean" over the severities), images, draws, accuracy, low, high,
        rejected; the corruption "mean" is over all corruptions and severities.

    Raises:
        UserError: no files, or a damaged one.
    """
    files = [read(path) for path in sorted(folder.glob("*.jsonl"))]
    if not files:
        raise UserError(f"{folder} has no results; run purebench corruptions first")
    out = []
    for about, entries, _ in files:
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for key, entry in entries.items():
            kind, severity = key.split("/")
            group_keys = [(kind, severity)] if kind == CLEAN else [(kind, severity), (kind, "mean"), ("mean", "mean")]
            for group_key in group_keys:
                groups.setdefault(group_key, []).append(entry)
        for (kind, severity), members in groups.items():
            right, rejected = (_mean([m[column] for m in members]) for column in ("right", "rejected"))
            low, high = wilson(sum(right), len(right))
            row = {"defense": about["label"], "corruption": kind, "severity": severity}
            row |= {"images": len(right), "draws": about["draws"], "accuracy": sum(right) / len(right)}
            out.append({**row, "low": float(low), "high": float(high), "rejected": sum(rejected) / len(right)})
    return out


def _mean(lists: Sequence[Sequence[float]]) -> list[float]:
    """Return the means over sets, image by image: all sets have the same images."""
    return [sum(values) / len(values) for values in zip(*lists, strict=True)]


def tables(rows: Sequence[Mapping[str, Any]], title: str) -> list[Table]:
    """Return a table of means over severities, defenses side by side, and for each defense one by severity.

    Args:
        rows: of `frame`.
        title: beginning of every title.
    """
    labels = list(dict.fromkeys(row["defense"] for row in rows))
    kinds = [k for k in dict.fromkeys(row["corruption"] for row in rows) if k != "mean"] + ["mean"]
    cells = {(r["defense"], r["corruption"], r["severity"]): _cell(r) for r in rows}
    notes = [f"accuracy in percent on {rows[0]['images']} images; intervals: Wilson, 95%, over images."]
    if any(row["rejected"] for row in rows):
        notes.append("images that a defense refuses count as wrong.")
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


def _cell(row: Mapping[str, Any]) -> str:
    """Return an accuracy with its interval, in percent."""
    return f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def write(folder: Path, title: str) -> str:
    """Write tables.md and tables.csv of a folder, and return the first table as text.

    Raises:
        UserError: as `frame`; or the folder cannot be written.
    """
    import pandas as pd

    rows = frame(folder)
    all_tables = tables(rows, title)
    write_whole(folder / "tables.md", to_markdown(all_tables), KEPT_NOTE)
    write_whole(folder / "tables.csv", to_csv(pd.DataFrame(rows)), KEPT_NOTE)
    return to_text(all_tables[0])
