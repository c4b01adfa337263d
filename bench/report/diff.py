"""The difference of two runs, as text and for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench.analysis.diff.cells import KINDS
from bench.analysis.verdict_agreement import TIE
from bench.report.format import ABSENT, percent
from bench.report.plain import to_text
from bench.report.table import Table
from defenses.utils.text import clean, counted

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.diff.difference import Difference

SCHEMA = 1
_SHOWN = 20  # warnings
_ROWS = ("defense", "attack", "view", "threat")
_COLUMNS = (*_ROWS, "images", "old %", "new %", "new - old [95%]", "differ", "ties", "lost", "won")
_CHANGES = ("what", "old", "new", "cells", "rows")
NOTES = (
    "old, new: share of right held-out draws over the images that both runs judged; new - old in points, with Bonett "
    "and Price's interval of paired images; of a worst case the share that withstands it",
    f"differ: images with another verdict in a draw, or another count; ties: of these, where the two largest logits "
    f"lie within {TIE:.0e} in each differing draw; lost, won: mostly right in the old run alone, in the new alone",
)


def as_dict(difference: Difference) -> dict[str, object]:
    """Return a difference for JSON, a missing number as None."""
    frames = {name: _records(getattr(difference, name)) for name in ("rows", "images", "changes")}
    environment = [dict(zip(("what", "old", "new"), row, strict=True)) for row in difference.environment]
    warnings = [dict(zip(("change", "defense", "text"), row, strict=True)) for row in difference.warnings]
    head = {"schema": SCHEMA, "old": difference.old, "new": difference.new, "title": difference.title}
    return {
        **head,
        "differs": difference.differs,
        "cells": dict(difference.cells),
        **frames,
        "environment": environment,
        "warnings": warnings,
    }


def _records(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def rows_table(difference: Difference, *, all_rows: bool = False) -> Table:
    """Return the rows that are not the same bits as a table; all rows if asked for."""
    frame = difference.rows
    shown = frame if all_rows else frame[(frame["state"] != "same")]
    cells = tuple(row_cells(row) for row in shown.to_dict("records"))
    return Table(f"{difference.title}: {len(shown)} of {counted(len(frame), 'row')} differ", _COLUMNS, cells, left=4)


def row_cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the cells of a row of `Difference.rows`, under the headings of `rows_table`."""
    both, old, new = (int(row[name]) for name in ("n", "n_old", "n_new"))
    images = str(both) if both == old == new else f"{both} of {old}, {new}"
    return (
        row_title(row),
        str(row["attack"]),
        str(row["view"]),
        f"{row['norm']} {row['eps']}",
        images,
        percent(row["old_mean"]),
        percent(row["new_mean"]),
        points(row),
        *(str(int(row[name])) for name in ("differing", "tied", "lost", "won")),
    )


def row_title(row: Mapping[Any, Any]) -> str:
    """Return the defense of a row, with its training seed where that is not 0."""
    seed = int(row["training_seed"])
    return f"{row['defense']} (training seed {seed})" if seed else str(row["defense"])


def points(row: Mapping[Any, Any]) -> str:
    """Return the difference of a row in points, with its interval; a dash without one."""
    values = [100 * float(row[name]) for name in ("difference", "low", "high")]
    return ABSENT if math.isnan(values[0]) else f"{values[0]:+.2f} [{values[1]:+.2f}, {values[2]:+.2f}]"


def changes_table(difference: Difference) -> Table:
    """Return what differs between the keys of cells, over all rows."""
    groups = difference.changes.groupby(["what", "old", "new"], sort=False)["cells"].agg(["sum", "size"])
    rows = tuple((*map(str, change), str(cells), str(size)) for change, cells, size in groups.itertuples())
    return Table("What the keys of the cells differ in", _CHANGES, rows, left=3)


def environment_table(difference: Difference) -> Table:
    """Return the environments side by side."""
    return Table("Environment", ("what", "old", "new"), tuple(difference.environment), left=3)


def counts(difference: Difference) -> str:
    """Return the numbers of cells, in one line."""
    total = sum(difference.cells.values())
    parts = [f"{n} {KINDS[kind]}" for kind, n in difference.cells.items() if n]
    return f"{counted(total, 'cell')}: {', '.join(parts)}"


def as_text(difference: Difference, width: int | None) -> str:
    """Return a difference as text: rows, changes of keys, environment, warnings, and the numbers of cells.

    Args:
        difference: of two runs.
        width: of the terminal; None: no limit.
    """
    blocks = []
    table = rows_table(difference)
    if table.rows:
        blocks.append(_text(table, width) + "".join(f"{note}\n" for note in _notes(width)))
    if len(difference.changes):
        blocks.append(_text(changes_table(difference), width))
    blocks.append(_text(environment_table(difference), width))
    if difference.warnings:
        blocks.append("".join(f"{line}\n" for line in _warning_lines(difference)))
    verdict = "the runs differ" if difference.differs else "the runs agree, ties apart"
    return "\n".join([*blocks, f"{counts(difference)}; {verdict}\n"])


def _text(table: Table, width: int | None) -> str:
    return to_text(table) if width is None else to_text(table, width, wrap=True)


def _notes(width: int | None) -> Iterator[str]:
    import textwrap

    for note in NOTES:
        yield note if width is None else textwrap.fill(note, width, subsequent_indent="  ")


def _warning_lines(difference: Difference) -> Iterator[str]:
    for change, defense, text in difference.warnings[:_SHOWN]:
        yield f"warning {change}: {clean(defense)}: {clean(text)}"
    if more := len(difference.warnings) - _SHOWN:
        yield from [f"and {counted(more, 'warning')} more: --json"] * (more > 0)
