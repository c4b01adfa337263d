"""Tables of accuracy under corruptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report.plain import to_csv, to_markdown, to_text
from bench.report.table import Table
from bench.stats.proportions import wilson
from bench.store.jsonl import read
from bench.tracks.corruptions.run import _KEPT, CLEAN
from defenses.utils.errors import UserError


def frame(folder: Path) -> list[dict[str, Any]]:
    """Accuracy of every defense on every corrupted set of a folder, with Wilson's intervals over images.

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
            names = [(kind, severity)] if kind == CLEAN else [(kind, severity), (kind, "mean"), ("mean", "mean")]
            for name in names:
                groups.setdefault(name, []).append(entry)
        for (kind, severity), members in groups.items():
            right, rejected = (_mean([m[what] for m in members]) for what in ("right", "rejected"))
            low, high = wilson(sum(right), len(right))
            row = {"defense": about["label"], "corruption": kind, "severity": severity}
            row |= {"images": len(right), "draws": about["draws"], "accuracy": sum(right) / len(right)}
            out.append({**row, "low": float(low), "high": float(high), "rejected": sum(rejected) / len(right)})
    return out


def _mean(lists: Sequence[Sequence[float]]) -> list[float]:
    """The mean over sets, image by image: the images of all sets are the same ones."""
    return [sum(values) / len(values) for values in zip(*lists, strict=True)]


def tables(found: Sequence[Mapping[str, Any]], title: str) -> list[Table]:
    """A table of means over severities, defenses side by side, and for each defense one by severity."""
    labels = list(dict.fromkeys(row["defense"] for row in found))
    kinds = [k for k in dict.fromkeys(row["corruption"] for row in found) if k != "mean"] + ["mean"]
    cells = {(r["defense"], r["corruption"], r["severity"]): _cell(r) for r in found}
    notes = [f"accuracy in percent on {found[0]['images']} images; intervals: Wilson, 95%, over images."]
    if any(row["rejected"] for row in found):
        notes.append("images that a defense refuses count as wrong.")
    made = [
        Table(
            f"{title}: mean over severities",
            ("corruption", *labels),
            tuple((k, *(cells.get((d, k, "0" if k == CLEAN else "mean"), "") for d in labels)) for k in kinds),
            tuple(notes),
        )
    ]
    severities = sorted({row["severity"] for row in found} - {"0", "mean"})
    for label in labels:
        lines = [(k, *(cells.get((label, k, s), "") for s in (*severities, "mean"))) for k in kinds[:-1] if k != CLEAN]
        made.append(Table(f"{title}: {label}", ("corruption", *severities, "mean"), tuple(lines), tuple(notes)))
    return made


def _cell(row: Mapping[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def write(folder: Path, title: str) -> str:
    """Write tables.md and tables.csv of a folder; the first table as text."""
    import pandas as pd

    from defenses.utils.files import write_whole

    found = frame(folder)
    made = tables(found, title)
    write_whole(folder / "tables.md", to_markdown(made), _KEPT)
    write_whole(folder / "tables.csv", to_csv(pd.DataFrame(found)), _KEPT)
    return to_text(made[0])
