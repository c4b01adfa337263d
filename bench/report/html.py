"""Write tables as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

from bench.report.table import Table, table_list
from defenses.utils.text import clean

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
    """Return tables as one page of HTML without scripts and external resources.

    Args:
        tables: one table or several.
        title: title of the page, plain text.
    """
    return page(title, "".join(html_table(t) for t in table_list(tables)))


def page(title: str, body: str, style: str = "") -> str:
    """Return a page of HTML without scripts and external resources.

    Args:
        title: plain text.
        body: HTML.
        style: CSS in addition to that of tables.
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
    """Return plain text as HTML."""
    return html.escape(clean(text), quote=True)


def html_table(table: Table, kinds: Mapping[str, str] | None = None) -> str:
    """Return a table as HTML, under its title.

    Args:
        table: the table.
        kinds: CSS classes of cells by their text.
    """

    def cell(tag: str, j: int, text: str) -> str:
        classes = [*(["t"] if table.is_left(j) else []), *([kinds[text]] if kinds and text in kinds else [])]
        attribute = f' class="{" ".join(classes)}"' if classes else ""
        safe = html_text(text)
        if tag == "th":
            safe = safe.replace(":", ":<wbr>").replace(" %", "&nbsp;%")
        return f"<{tag}{attribute}>{safe}</{tag}>"

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
