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


def _latex_table(table: Table) -> str:
    def row(cells: Iterable[str], strong: bool = False) -> str:
        # Without the empty group, a cell that starts with [ is an argument of the line break before it.
        texts = [f"\\textbf{{{escaped(c)}}}" if strong and c else escaped(c) for c in cells]
        return "{}" + " & ".join(texts) + r" \\"

    layout = "".join("l" if table.is_left(j) else "r" for j in range(len(table.columns)))
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escaped(table.title)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        row(table.columns),
        r"\midrule",
        *(row(r, i in table.strong) for i, r in enumerate(table.rows)),
        r"\bottomrule",
        r"\end{tabular}}",
        *(rf"\par\smallskip{{\footnotesize {escaped(n)}}}" for n in table.footnotes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
