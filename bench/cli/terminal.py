"""Text for a terminal: its width, headings, wrapped columns. Output that goes elsewhere is neither cut nor marked."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.report.table import Table

_LEAST = 20  # columns of wrapped text, however narrow the terminal


def width() -> int | None:
    """Return the columns of the terminal; None where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitted(table: Table) -> str:
    """Return a table as text that fits the terminal; whole where standard output is none."""
    from bench.report.plain import to_text

    columns, text = width(), to_text(table)
    if columns is None or all(len(line) <= columns for line in text.splitlines()):
        return text
    return to_text(table, columns, wrap=True)


def fitted_lines(text: str) -> str:
    """Return lines of text, those that are wider than the terminal wrapped."""
    columns = width() or sys.maxsize
    lines = text.splitlines()
    return "\n".join(
        textwrap.fill(line, columns, subsequent_indent="    ", break_on_hyphens=False) if len(line) > columns else line
        for line in lines
    )


def heading(text: str) -> str:
    """Return a heading, in bold on a terminal unless NO_COLOR is set."""
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def wrapped(text: str, columns: int | None, indent: int = 0) -> list[str]:
    """Return the lines of an indented text.

    Args:
        text: one line.
        columns: width of the terminal; None: no limit.
        indent: spaces before each line.
    """
    if columns is None:
        return [" " * indent + text]
    room = max(columns - indent, _LEAST)
    return [" " * indent + line for line in textwrap.wrap(text, room, break_on_hyphens=False)] or [""]


def aligned(rows: Sequence[Sequence[str]], columns: int | None = None, indent: int = 0) -> list[str]:
    """Return rows of cells as lines with aligned columns; for the arguments see `aligned_each`."""
    return [line for lines in aligned_each(rows, columns, indent) for line in lines]


def aligned_each(rows: Sequence[Sequence[str]], columns: int | None = None, indent: int = 0) -> list[list[str]]:
    """Return the lines of each row of cells, with columns aligned over all rows; the last cell of a row is wrapped.

    On a terminal the columns before it take at most half of the width: a row with longer cells has its last cell below.

    Args:
        rows: of equally many cells, at least two.
        columns: width of the terminal; None: no limit.
        indent: spaces before each line.
    """
    heads = [list(row[:-1]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*heads, strict=True)]
    start = indent + sum(w + 2 for w in widths)
    if columns is not None and start > columns // 2:
        half = columns // 2 - indent - 2
        fitting = [w for w in (len("  ".join(head)) for head in heads) if w <= half]
        widths, start = ([max(fitting)] if fitting else [0]), indent + max(fitting, default=0) + 2
        heads = [["  ".join(head)] for head in heads]
    result = []
    for head, row in zip(heads, rows, strict=True):
        first = " " * indent + "".join(f"{cell:<{w}}  " for cell, w in zip(head, widths, strict=True))
        last = wrapped(row[-1], columns, start) if row[-1] else []
        if last and len(first) == start:
            last[0] = first + last[0][start:]
            result.append(last)
        else:
            result.append([*wrapped(first.strip(), columns, indent), *last])
    return result
