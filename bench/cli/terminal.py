"""Text for a terminal: its width, headings, wrapped columns. Output that goes elsewhere is neither cut nor marked."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

_LEAST = 20  # columns of wrapped text, however narrow the terminal


def width() -> int | None:
    """Return the columns of the terminal; None where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


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
    """Return rows of cells as lines with aligned columns; the last cell of a row is wrapped.

    Args:
        rows: of equally many cells.
        columns: width of the terminal; None: no limit.
        indent: spaces before each line.
    """
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    start = indent + sum(w + 2 for w in widths)
    if columns is not None and start > columns - _LEAST:  # no room beside the others: below them
        return [line for row in rows for line in _stacked(row, widths, columns, indent)]
    lines = []
    for row in rows:
        first = " " * indent + "".join(f"{cell:<{w}}  " for cell, w in zip(row, widths, strict=False))
        last = wrapped(row[-1], columns, start)
        lines += [(first + last[0][start:]).rstrip(), *last[1:]]
    return lines


def _stacked(row: Sequence[str], widths: Sequence[int], columns: int, indent: int) -> list[str]:
    """Return a row whose last cell stands below the others."""
    first = " " * indent + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False))
    return [*wrapped(first.strip(), columns, indent), *(wrapped(row[-1], columns, indent + 4) if row[-1] else [])]
