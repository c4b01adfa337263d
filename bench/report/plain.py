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


_LEAST_ROOM = 16  # characters of a wrapped heading


def markdown_text(text: str) -> str:
    """Return plain text as Markdown that shows it."""
    safe = html.escape(clean(text), quote=False)
    safe = re.sub(r"([\\`*~|])", r"\\\1", safe)
    # Underscores inside words and lone brackets have no meaning in Markdown; they stay readable.
    safe = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", safe)
    return re.sub(r"\](?=[(\[:])", r"\\]", safe)


def to_markdown(tables: Table | Iterable[Table], level: int = 2) -> str:
    """Return tables as GitHub's Markdown, with aligned source.

    Args:
        tables: one table or several.
        level: of the headings that are their titles.
    """
    return "\n".join(_markdown_table(t, level) for t in table_list(tables))


def _markdown_table(table: Table, level: int) -> str:
    rows = [[markdown_text(c) for c in table.columns]]
    rows += [
        [f"**{markdown_text(c)}**" if i in table.strong and c else markdown_text(c) for c in r]
        for i, r in enumerate(table.rows)
    ]
    widths = [max(3, *(len(row[j]) for row in rows)) for j in range(len(table.columns))]
    rule = ["-" * w if table.is_left(j) else "-" * (w - 1) + ":" for j, w in enumerate(widths)]
    lines = [
        "| " + " | ".join(_pad(c, w, table.is_left(j)) for j, (c, w) in enumerate(zip(row, widths, strict=True))) + " |"
        for row in [rows[0], rule, *rows[1:]]
    ]
    notes = "".join(f"- {markdown_text(n)}\n" for n in table.footnotes)
    return f"{'#' * level} {markdown_text(table.title)}\n\n" + "\n".join(lines) + "\n" + (f"\n{notes}" if notes else "")


def _pad(text: str, width: int, left: bool) -> str:
    gap = " " * (width - _width(text))
    return text + gap if left else gap + text


def _width(text: str) -> int:
    """Return the number of terminal columns of a text."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def to_text(table: Table, width: int | None = None, *, wrap: bool = False) -> str:
    """Return a table as plain text.

    Args:
        table: the table.
        width: width in characters; columns beyond it follow below, after the first ones again. None: no limit.
        wrap: headings and names are wrapped, so that a column is hardly wider than its numbers.
    """
    rows = [[[clean(c)] for c in row] for row in (table.columns, *table.rows)]
    if wrap:
        rooms = [_room(table, j, width) for j in range(len(table.columns))]
        rows = [
            [_lines(c[0], rooms[j]) if i == 0 or j < table.left else c for j, c in enumerate(row)]
            for i, row in enumerate(rows)
        ]
    widths = [max(_width(line) for row in rows for line in row[j]) for j in range(len(table.columns))]
    lines = [clean(table.title), ""] if width is None or not wrap else [*textwrap.wrap(clean(table.title), width), ""]
    for columns in _blocks(widths, table.left, width):
        for i, row in enumerate(rows):
            for at in range(max(len(row[j]) for j in columns)):
                cells = [row[j][at] if at < len(row[j]) else "" for j in columns]
                shown = (_pad(c, widths[j], table.is_left(j)) for j, c in zip(columns, cells, strict=True))
                lines.append("  ".join(shown).rstrip())
            if i == 0:
                lines.append("  ".join("-" * widths[j] for j in columns))
        lines.append("")
    notes = [
        clean(n) if width is None else textwrap.fill(clean(n), width, subsequent_indent="  ") for n in table.footnotes
    ]
    return "\n".join([*lines, *notes]).rstrip() + "\n"


def _room(table: Table, column: int, width: int | None) -> int:
    """Return the width to which a column's heading, and of the first columns the names, are wrapped."""
    if column < table.left:
        return max(_LEAST_ROOM, (width or 0) // (2 * table.left) - 2)
    return max(_LEAST_ROOM, *(_width(clean(row[column])) for row in table.rows)) if table.rows else _LEAST_ROOM


def _lines(text: str, room: int) -> list[str]:
    """Return a text in lines of at most `room` characters, broken at spaces and after ":", "/", "," and "-"."""
    lines = [""]
    for piece in re.findall(r"[^\s:/,-]*(?:[:/,-]+|\s+|$)", text):
        for start in range(0, len(piece), room):
            part = piece[start : start + room]
            if len(lines[-1]) + len(part.rstrip()) > room:
                lines.append("")
            lines[-1] += part
    return [line.rstrip() for line in lines if line.strip()] or [""]


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
