"""Write tables as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

from bench.report.table import Table, table_list
from defenses.utils.text import clean

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --soft: #59626e; --line: #d9dee5; --back: #ffffff; --mark: #1f5fa8;
  --head: #f5f7f9; --strong: #eef3fb; --hover: #f8fafc; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7ed; --soft: #a3adba; --line: #343b45; --back: #14171c;
  --head: #1c2128; --strong: #1d2838; --hover: #191d23; --mark: #6fa8e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3.5rem); max-width: 150rem; color: var(--ink);
  background: var(--back); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
a { color: var(--mark); }
h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -.01em; margin: 0 0 2rem; overflow-wrap: anywhere; }
section { margin: 0 0 3rem; }
h2 { font-size: 1.05rem; font-weight: 600; margin: 0 0 .75rem; overflow-wrap: anywhere; }
.frame { overflow: auto; max-height: 92vh; border: 1px solid var(--line); border-radius: 8px; }
.frame:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
  background: var(--back); }
thead th { position: sticky; top: 0; z-index: 1; background: var(--head); color: var(--soft); font-size: .8rem;
  font-weight: 600; line-height: 1.3; vertical-align: bottom; white-space: normal; min-width: 5.5rem;
  overflow-wrap: break-word; }
tbody th { font-weight: inherit; }
.t { text-align: left; }
tr > :first-child { position: sticky; left: 0; max-width: 16rem; white-space: normal;
  overflow-wrap: break-word; }
thead tr > :first-child { z-index: 2; }
tbody tr:last-child > * { border-bottom: 0; }
tbody tr:hover > * { background: var(--hover); }
tr.s > *, tr.s:hover > * { background: var(--strong); font-weight: 600; }
ul { margin: .9rem 0 0; padding: 0; list-style: none; color: var(--soft); font-size: .85rem; max-width: 90ch; }
li { margin: .2rem 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { tr > :first-child { max-width: 8.5rem; } }
@page { size: landscape; margin: 1cm; }
@media print { body { padding: 0; font-size: 7pt; } .frame { overflow: visible; max-height: none; border: 0; }
  th, td { padding: .1rem .2rem; white-space: normal; overflow-wrap: anywhere; } ul { font-size: 7pt; }
  thead th { min-width: 0; position: static; font-size: 6.5pt; overflow-wrap: anywhere; }
  tr > :first-child { position: static; } }
"""


def to_html(tables: Table | Iterable[Table], title: str, files: Mapping[str, str] | None = None) -> str:
    """Return tables as one page of HTML without scripts and external resources.

    Args:
        tables: one table or several.
        title: title of the page, plain text.
        files: files beside the page that it links, with the text of the link.
    """
    links = [f'<a href="{html_text(name)}">{html_text(text)}</a>' for name, text in (files or {}).items()]
    below = f"<p>{' · '.join(links)}</p>\n" if links else ""
    return page(title, "".join(html_table(t) for t in table_list(tables)) + below)


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
        f"<main>\n<h1>{html_text(title)}</h1>\n{body}</main>\n</body>\n</html>\n"
    )


def html_text(text: str) -> str:
    """Return plain text as HTML."""
    return html.escape(clean(text), quote=True)


def html_table(
    table: Table, kinds: Mapping[str, str] | None = None, below: Mapping[tuple[int, int], str] | None = None
) -> str:
    """Return a table as HTML, under its title.

    Args:
        table: the table; its first columns, which are aligned left and hold names, are the headers of their rows.
        kinds: CSS classes of cells by their text.
        below: HTML below the text of cells, by row and column.
    """

    def attributes(j: int, text: str) -> str:
        classes = [*(["t"] if table.is_left(j) else []), *([kinds[text]] if kinds and text in kinds else [])]
        return f' class="{" ".join(classes)}"' if classes else ""

    def head(j: int, text: str) -> str:
        safe = html_text(text).replace(":", ":<wbr>").replace(" %", "&nbsp;%")
        return f'<th scope="col"{attributes(j, text)}>{safe}</th>'

    def cell(i: int, j: int, text: str) -> str:
        tag, scope = ("th", ' scope="row"') if j < table.headers and text else ("td", "")
        more = (below or {}).get((i, j), "")
        return f"<{tag}{scope}{attributes(j, text)}>{html_text(text)}{more}</{tag}>"

    def line(i: int, row: tuple[str, ...]) -> str:
        opened = '<tr class="s">' if i in table.strong else "<tr>"
        return opened + "".join(cell(i, j, text) for j, text in enumerate(row)) + "</tr>"

    title = html_text(table.title)
    lines = [
        f'<section>\n<h2>{title}</h2>\n<div class="frame" tabindex="0" role="region" aria-label="{title}">\n<table>',
        f"<thead><tr>{''.join(head(j, text) for j, text in enumerate(table.columns))}</tr></thead>\n<tbody>",
        *(line(i, row) for i, row in enumerate(table.rows)),
        "</tbody>\n</table>\n</div>",
        *(["<ul>", *(f"<li>{html_text(n)}</li>" for n in table.footnotes), "</ul>"] if table.footnotes else []),
        "</section>\n",
    ]
    return "\n".join(lines)
