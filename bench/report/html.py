"""Write tables as HTML, by Jinja templates."""

from __future__ import annotations

import functools
import html
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from bench.report.table import Table, table_list
from defenses.utils.text import clean

if TYPE_CHECKING:
    from jinja2 import Environment


def to_html(tables: Table | Iterable[Table], title: str, files: Mapping[str, str] | None = None) -> str:
    """Return tables as one page of HTML without scripts and external resources.

    Args:
        tables: one table or several.
        title: title of the page, plain text.
        files: files beside the page that it links, with the text of the link.
    """
    return page(title, Markup().join(html_table(t) for t in table_list(tables)), files=files)


def page(title: str, body: Markup, *, style: str = "", files: Mapping[str, str] | None = None) -> str:
    """Return a page of HTML without scripts and external resources.

    Args:
        title: plain text.
        body: HTML.
        style: template of CSS in addition to that of tables.
        files: files beside the page that it links, with the text of the link.
    """
    return (
        environment("bench.report")
        .get_template("page.html.j2")
        .render(title=title, body=body, style=style, files=files or {})
    )


def html_table(
    table: Table, kinds: Mapping[str, str] | None = None, below: Mapping[tuple[int, int], Markup] | None = None
) -> Markup:
    """Return a table as HTML, under its title.

    Args:
        table: the table; its first columns, which are aligned left and hold names, are the headers of their rows.
        kinds: CSS classes of cells by their text.
        below: HTML below the text of cells, by row and column.
    """
    template = environment("bench.report").get_template("table.html.j2")
    return Markup(template.render(table=table, kinds=kinds or {}, below=below or {}))


def _escaped(value: Any) -> Any:
    """Return plain text as HTML, without characters that hide or reorder text; HTML as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(clean(str(value)), quote=True))


def _heading(text: str) -> Markup:
    """Return a heading that may be broken after colons, and not before a percent sign."""
    return Markup(_escaped(text).replace(":", Markup(":<wbr>")).replace(" %", Markup("&nbsp;%")))


@functools.cache
def environment(package: str) -> Environment:
    """Return the templates of a package; every value in them is escaped.

    Args:
        package: that has a folder of templates.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # slow to import

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["heading"] = _heading
    return environment
