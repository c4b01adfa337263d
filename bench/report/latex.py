"""Write tables as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable

from bench.report.table import Table, table_list
from defenses.utils.text import clean

_LATEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "{}$&#%_"},
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        '"': r"\char34{}",
        "∞": r"$\infty$",
        "–": "--",
        "×": r"$\times$",
        "�": "?",
    }
)


def escaped(text: str) -> str:
    """Return a text for LaTeX, without control characters."""
    return clean(text).translate(_LATEX)


def to_latex(tables: Table | Iterable[Table]) -> str:
    """Return tables as LaTeX floats; the document needs booktabs and graphicx."""
    return "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(_latex_table(t) for t in table_list(tables))


def tabular(layout: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a tabular between booktabs' rules, of a layout and cells that are LaTeX."""
    # Without the empty group, a cell that starts with [ is an argument of the line break before it.
    head, *body = ("{}" + " & ".join(cells) + r" \\" for cells in (columns, *rows))
    lines = (rf"\begin{{tabular}}{{{layout}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule")
    return "\n".join((*lines, r"\end{tabular}"))


def _latex_table(table: Table) -> str:
    def row(cells: Iterable[str], strong: bool = False) -> list[str]:
        return [rf"\textbf{{{escaped(c)}}}" if strong and c else escaped(c) for c in cells]

    rows = (row(cells, i in table.strong) for i, cells in enumerate(table.rows))
    layout = "".join("l" if table.is_left(j) else "r" for j in range(len(table.columns)))
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escaped(table.title)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        tabular(layout, row(table.columns), rows) + "}",
        *(rf"\par\smallskip{{\footnotesize {escaped(n)}}}" for n in table.footnotes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
