"""A table of strings, and the ways to write it: Markdown, LaTeX, HTML, plain text; and a numeric frame as CSV.

Names of defenses and attacks come from anywhere: each writer escapes them, and none passes control characters on.
"""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from defenses.utils.text import clean

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """A table ready to be written.

    Args:
        title: one line.
        columns: headers.
        rows: cells, as long as `columns` each.
        footnotes: lines below.
        left: how many columns, from the first, are names and set left.
        tail: how many columns, from the last, are remarks and set left; all others are set right.
        strong: positions of rows that stand out.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footnotes: tuple[str, ...] = ()
    left: int = 1
    tail: int = 0
    strong: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("every row needs one cell per column")

    def is_left(self, column: int) -> bool:
        """Whether a column is set left."""
        return column < self.left or column >= len(self.columns) - self.tail


# Markdown


def _markdown(text: str) -> str:
    safe = html.escape(clean(text), quote=False)
    safe = re.sub(r"([\\`*~|])", r"\\\1", safe)
    # Underscores inside words and lone brackets mean nothing in Markdown; escaped ones only hurt the reader.
    safe = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", safe)
    return re.sub(r"\](?=[(\[:])", r"\\]", safe)


def to_markdown(tables: Table | Iterable[Table]) -> str:
    """Tables as GitHub's Markdown, with aligned source."""
    return "\n".join(_markdown_table(t) for t in _several(tables))


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
    """Columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _several(tables: Table | Iterable[Table]) -> list[Table]:
    return [tables] if isinstance(tables, Table) else list(tables)


# Plain text


def to_text(table: Table, width: int | None = None) -> str:
    """A table for the terminal.

    Args:
        table: the table.
        width: of the terminal; columns that do not fit follow below, the text columns repeated. None: no limit.
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
    """Which columns are printed side by side."""
    fixed = list(range(left))
    start = sum(widths[j] + 2 for j in fixed)
    blocks, used = [list(fixed)], start
    for j in range(left, len(widths)):
        if width is not None and used + widths[j] > width and len(blocks[-1]) > left:
            blocks.append(list(fixed))
            used = start
        blocks[-1].append(j)
        used += widths[j] + 2
    return blocks


# LaTeX

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


def _latex(text: str) -> str:
    return clean(text).translate(_LATEX)


def to_latex(tables: Table | Iterable[Table]) -> str:
    """Tables as LaTeX floats; the document needs booktabs and graphicx."""
    return "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(_latex_table(t) for t in _several(tables))


def _latex_table(table: Table) -> str:
    def row(cells: Iterable[str], strong: bool = False) -> str:
        # The empty group keeps a cell that starts with [ from becoming an argument of the line break before it.
        texts = [f"\\textbf{{{_latex(c)}}}" if strong and c else _latex(c) for c in cells]
        return "{}" + " & ".join(texts) + r" \\"

    layout = "".join("l" if table.is_left(j) else "r" for j in range(len(table.columns)))
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{_latex(table.title)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        row(table.columns),
        r"\midrule",
        *(row(r, i in table.strong) for i, r in enumerate(table.rows)),
        r"\bottomrule",
        r"\end{tabular}}",
        *(rf"\par\smallskip{{\footnotesize {_latex(n)}}}" for n in table.footnotes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


# HTML

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --soft: #626b77; --line: #d9dee5; --back: #ffffff;
  --head: #f5f7f9; --strong: #eef3fb; --hover: #f8fafc; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7ed; --soft: #97a1af; --line: #343b45; --back: #14171c;
  --head: #1c2128; --strong: #1d2838; --hover: #191d23; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3.5rem); max-width: 150rem; color: var(--ink);
  background: var(--back); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -.01em; margin: 0 0 2rem; }
section { margin: 0 0 3rem; }
h2 { font-size: 1.05rem; font-weight: 600; margin: 0 0 .75rem; }
.frame { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: var(--head); color: var(--soft); font-size: .8rem; font-weight: 600; line-height: 1.3;
  vertical-align: bottom; white-space: normal; min-width: 5.5rem; overflow-wrap: break-word; }
.t { text-align: left; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--back); }
th:first-child { background: var(--head); }
tbody tr:last-child td { border-bottom: 0; }
tbody tr:hover td { background: var(--hover); }
tr.s td, tr.s:hover td { background: var(--strong); font-weight: 600; }
ul { margin: .9rem 0 0; padding: 0; list-style: none; color: var(--soft); font-size: .85rem; max-width: 90ch; }
li { margin: .2rem 0; }
@media print { body { padding: 0; } .frame { overflow: visible; border: 0; } }
"""


def to_html(tables: Table | Iterable[Table], title: str) -> str:
    """Tables as one page that loads nothing and runs nothing."""
    return page(title, "".join(html_table(t) for t in _several(tables)))


def page(title: str, body: str, style: str = "") -> str:
    """A page of HTML that loads nothing and runs nothing.

    Args:
        title: plain text.
        body: HTML.
        style: CSS, beyond that of tables.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{html_text(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        f"<h1>{html_text(title)}</h1>\n{body}</body>\n</html>\n"
    )


def html_text(text: str) -> str:
    """Plain text as HTML."""
    return html.escape(clean(text), quote=True)


def html_table(table: Table, kinds: Mapping[str, str] | None = None) -> str:
    """A table as HTML, under its title.

    Args:
        table: the table.
        kinds: CSS classes of cells, by their text.
    """

    def cell(tag: str, j: int, text: str) -> str:
        named = [*(["t"] if table.is_left(j) else []), *([kinds[text]] if kinds and text in kinds else [])]
        kind = f' class="{" ".join(named)}"' if named else ""
        safe = html_text(text)
        return f"<{tag}{kind}>{safe.replace(':', ':<wbr>').replace(' %', '&nbsp;%') if tag == 'th' else safe}</{tag}>"

    def cells(tag: str, row: tuple[str, ...]) -> str:
        return "".join(cell(tag, j, text) for j, text in enumerate(row))

    rows = [('<tr class="s">' if i in table.strong else "<tr>") + cells("td", r) for i, r in enumerate(table.rows)]
    lines = [
        f'<section>\n<h2>{html_text(table.title)}</h2>\n<div class="frame">\n<table>',
        f"<thead><tr>{cells('th', table.columns)}</tr></thead>\n<tbody>",
        *(f"{row}</tr>" for row in rows),
        "</tbody>\n</table>\n</div>\n<ul>",
        *(f"<li>{html_text(n)}</li>" for n in table.footnotes),
        "</ul>\n</section>\n",
    ]
    return "\n".join(lines)


# CSV


def to_csv(frame: pd.DataFrame) -> str:
    """A numeric frame as CSV at full precision. A name that a spreadsheet would run gets an apostrophe before it."""
    text = frame.select_dtypes(include=["object", "string"])
    safe = frame.assign(**{str(c): text[c].map(_csv, na_action="ignore") for c in text})
    out: str = safe.to_csv(index=False, lineterminator="\n")
    return out


def _csv(value: object) -> object:
    if not isinstance(value, str):
        return value
    line = clean(value)
    return f"'{line}" if line.startswith(("=", "+", "@")) else line
