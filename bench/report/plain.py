"""Write tables as Markdown, plain text and CSV."""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bench.report.table import Table, table_list
from defenses.utils.text import clean

if TYPE_CHECKING:
    import pandas as pd


def _markdown(text: str) -> str:
    safe = html.escape(clean(text), quote=False)
    safe = re.sub(r"([\\`*~|])", r"\\\1", safe)
    # Underscores inside words and lone brackets have no meaning in Markdown; they stay readable.
    safe = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", safe)
    return re.sub(r"\](?=[(\[:])", r"\\]", safe)


def to_markdown(tables: Table | Iterable[Table]) -> str:
    """Return tables as GitHub's Markdown, with aligned source."""
    return "\n".join(_markdown_table(t) for t in table_list(tables))


def _markdown_table(table: Table) -> str:
    rows = [[_markdown(c) for c in table.columns]]
    rows += [
        [f"**{_markdown(c)}**" if i in table.strong and c else _markdown(c) for c in r]
        for i, r in enumerate(table.rows)
    ]
    widths = [max(3, *(len(row[j]) for row in rows)) for j in range(len(table.columns))]
    rule = ["-" * w if table.is_left(j) else "-" * (w - 1) + ":" for j, w in enumerate(widths)]
    lines = [
        "| " + " | ".join(_pad(c, w, table.is_left(j)) for j, (c, w) in enumerate(zip(row, widths, strict=True))) + " |"
        for row in [rows[0], rule, *rows[1:]]
    ]
    notes = "".join(f"- {_markdown(n)}\n" for n in table.footnotes)
    return f"## {_markdown(table.title)}\n\n" + "\n".join(lines) + "\n" + (f"\n{notes}" if notes else "")


def _pad(text: str, width: int, left: bool) -> str:
    gap = " " * (width - _width(text))
    return text + gap if left else gap + text


def _width(text: str) -> int:
    """Return the number of terminal columns of a text."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def to_text(table: Table, width: int | None = None) -> str:
    """Return a table as plain text.

    Args:
        table: the table.
        width: width in characters; columns beyond it follow below, after the first ones again. None: no limit.
    """
    rows = [[clean(c) for c in row] for row in (table.columns, *table.rows)]
    widths = [max(_width(row[j]) for row in rows) for j in range(len(table.columns))]
    lines = [clean(table.title), ""]
    for columns in _blocks(widths, table.left, width):
        for i, row in enumerate(rows):
            lines.append("  ".join(_pad(row[j], widths[j], table.is_left(j)) for j in columns).rstrip())
            if i == 0:
                lines.append("  ".join("-" * widths[j] for j in columns))
        lines.append("")
    notes = [
        clean(n) if width is None else textwrap.fill(clean(n), width, subsequent_indent="  ") for n in table.footnotes
    ]
    return "\n".join([*lines, *notes]).rstrip() + "\n"


def _blocks(widths: Sequence[int], left: int, width: int | None) -> list[list[int]]:
    """Return the groups of columns that are printed side by side."""
    repeated = list(range(left))
    start = sum(widths[j] + 2 for j in repeated)
    blocks, end = [list(repeated)], start
    for j in range(left, len(widths)):
        if width is not None and end + widths[j] > width and len(blocks[-1]) > left:
            blocks.append(list(repeated))
            end = start
        blocks[-1].append(j)
        end += widths[j] + 2
    return blocks


def to_csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV at full precision; names that a spreadsheet would execute get an apostrophe in front."""
    text = frame.select_dtypes(include=["object", "string"])
    safe = frame.assign(**{str(c): text[c].map(_csv, na_action="ignore") for c in text})
    out: str = safe.to_csv(index=False, lineterminator="\n")
    return out


def _csv(value: object) -> object:
    if not isinstance(value, str):
        return value
    line = clean(value)
    return f"'{line}" if line.startswith(("=", "+", "@")) else line
