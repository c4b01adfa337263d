"""Write tables as LaTeX for a paper, in one column where they fit: booktabs, a caption of data, a label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bench.report.latex import escaped, tabular
from bench.report.table import Table, table_list
from defenses.utils.hints import note
from defenses.utils.text import file_name

_COLUMN, _PAGE = 240, 500  # points: widths of one column, and of both, of most papers
_NAME = 0.28  # share of that width in which longer names are broken into lines
_SIZES = {"footnotesize": (4.3, 3), "scriptsize": (4.0, 2)}  # points: of a character, and beside each column
_TINY = 3.5  # points of a character of an interval
_BREAK = re.compile(r"(?<=[^\w\s])(?=\S)|(?<=\w{8})(?=\w)")  # where a line may end


def to_paper(tables: Table | Iterable[Table]) -> str:
    """Return tables as floats of one column, or of the page where they are wider; one beyond that is noted.

    The document needs array and booktabs.
    """
    made = [_float(table, at) for at, table in enumerate(table_list(tables))]
    return "% needs \\usepackage{array,booktabs}\n" + "\n".join(made)


def _float(table: Table, number: int) -> str:
    label = file_name(table.name or table.title).lower() + (f"-{number + 1}" if number else "")
    caption = ". ".join([escaped(table.title), *(escaped(text).rstrip(".") for text in table.footnotes)])
    size = "scriptsize" if len(table.columns) > 5 else "footnotesize"
    char, gap = _SIZES[size]
    room = _COLUMN if _width(table, _COLUMN, size) <= _COLUMN else _PAGE
    if (width := _width(table, room, size)) > _PAGE:
        note(
            f'the table "{table.title}" is about {width:.0f} pt wide, more than a page of {_PAGE}; choose fewer columns'
        )
    long = max((len(row[0]) for row in table.rows), default=0) * char > _NAME * room
    first = rf">{{\raggedright\arraybackslash}}p{{{_NAME}\linewidth}}" if long else "l"
    kind = "table*" if room == _PAGE else "table"
    worst = next((at for at, name in enumerate(table.columns) if name.startswith("worst case")), -1)
    rows = (_row(row, worst if at in table.strong else -1, breaks=long) for at, row in enumerate(table.rows))
    lines = [
        rf"\begin{{{kind}}}[t]",
        r"\centering",
        rf"\caption{{{caption}.}}",
        rf"\label{{tab:{label}}}",
        rf"\{size}",
        rf"\setlength{{\tabcolsep}}{{{gap}pt}}",
        tabular(f"@{{}}{first}{'r' * (len(table.columns) - 1)}@{{}}", _row(table.columns), rows),
        rf"\end{{{kind}}}",
    ]
    return "\n".join(lines) + "\n"


def _width(table: Table, room: float, size: str) -> float:
    """Return the estimated width of a table in points, rather too large.

    Args:
        table: the table.
        room: points between the margins, of which names take a share at most.
        size: a key of `_SIZES`.
    """
    char, gap = _SIZES[size]
    widths = []
    for cells in zip(table.columns, *table.rows, strict=True):
        parts = [cell.partition(" [") for cell in cells]
        widths.append(max(char * len(value) + _TINY * len(bracket + ends) for value, bracket, ends in parts))
    names, *rest = widths
    return min(names, _NAME * room) + sum(rest) + 2 * gap * len(rest)


def _row(cells: Sequence[str], strong: int = -1, *, breaks: bool = False) -> list[str]:
    """Return the cells of a row as LaTeX.

    Args:
        cells: its cells.
        strong: position of the cell in bold; -1: none.
        breaks: the name may be broken into lines.
    """
    name, *rest = cells
    first = r"\hspace{0pt}".join(map(escaped, _BREAK.split(name))) if breaks else escaped(name)
    texts = [first, *map(_interval, rest)]
    return [rf"\textbf{{{text}}}" if at == strong else text for at, text in enumerate(texts)]


def _interval(cell: str) -> str:
    """Return a cell, its interval in smaller type."""
    value, bracket, ends = cell.partition(" [")
    return rf"{escaped(value)} {{\tiny [{escaped(ends)}}}" if bracket else escaped(value)
