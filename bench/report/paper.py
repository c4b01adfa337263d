"""Write tables as LaTeX for one column of a paper: booktabs, a caption of data, a label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bench.report.latex import escaped, tabular
from bench.report.table import Table, table_list
from defenses.utils.text import file_name

_LONG = 16  # characters of a name from which on names are broken into lines
_BREAK = re.compile(r"(?<=[^\w\s])(?=\S)|(?<=\w{8})(?=\w)")  # where a line may end


def to_paper(tables: Table | Iterable[Table]) -> str:
    """Return tables as floats of one column; the document needs array and booktabs."""
    made = [_float(table, at) for at, table in enumerate(table_list(tables))]
    return "% needs \\usepackage{array,booktabs}\n" + "\n".join(made)


def _float(table: Table, number: int) -> str:
    label = file_name(table.name or table.title).lower() + (f"-{number + 1}" if number else "")
    caption = ". ".join([escaped(table.title), *(escaped(note).rstrip(".") for note in table.footnotes)])
    names = [row[0] for row in table.rows]
    long = max(map(len, names), default=0) > _LONG
    first = r">{\raggedright\arraybackslash}p{0.28\linewidth}" if long else "l"
    wide = len(table.columns) > 5
    worst = next((at for at, name in enumerate(table.columns) if name.startswith("worst case")), -1)
    rows = (_row(row, worst if at in table.strong else -1, breaks=long) for at, row in enumerate(table.rows))
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{caption}.}}",
        rf"\label{{tab:{label}}}",
        r"\scriptsize" if wide else r"\footnotesize",
        rf"\setlength{{\tabcolsep}}{{{2 if wide else 3}pt}}",
        tabular(f"@{{}}{first}{'r' * (len(table.columns) - 1)}@{{}}", _row(table.columns), rows),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


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
