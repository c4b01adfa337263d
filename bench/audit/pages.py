"""Audits as Markdown, and as one HTML page without other files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from bench.audit.svg import as_svg
from bench.report.html import html_table, page
from bench.report.plain import to_markdown
from bench.report.table import Table

if TYPE_CHECKING:
    from bench.audit.findings import Audit, Finding

_KINDS = {"pass": "pass", "fail": "fail", "not measurable": "not", "not applicable": "not"}
_MOST = 12  # images listed by position


def summary(audits: Sequence[Audit]) -> Table:
    """Return a table with a row for each defense."""
    rows = tuple((a.label, a.setting, a.status, _counts(a), ", ".join(a.failed)) for a in audits)
    return Table("Summary", ("defense", "threat", "audit", "checks", "failed"), rows, left=5)


def as_markdown(audits: Sequence[Audit]) -> str:
    """Return all audits: a summary, then a table for each defense."""
    return to_markdown([summary(audits), *map(_findings, audits)])


def as_html(audits: Sequence[Audit]) -> str:
    """Return all audits as a page, with their plots."""
    return page(
        "Audits", html_table(summary(audits), _KINDS) + Markup().join(map(_section, audits)), style="audits.css"
    )


def _section(audit: Audit) -> Markup:
    """Return the table of a defense, each plot below the evidence of its check."""
    plots = {(i, 2): Markup(as_svg(f.plot, f.check)) for i, f in enumerate(audit.findings) if f.plot is not None}
    return html_table(_findings(audit), _KINDS, plots)


def _findings(audit: Audit) -> Table:
    """Return the findings about a defense as a table."""
    rows = tuple((f.check, f.status, f.evidence, _images(f)) for f in audit.findings)
    return Table(f"{audit.label}, {audit.setting}", ("check", "status", "evidence", "images"), rows, left=4)


def _counts(audit: Audit) -> str:
    """Return the number of checks by status."""
    statuses = [f.status for f in audit.findings]
    return ", ".join(f"{statuses.count(s)} {s}" for s in _KINDS if s in statuses)


def _images(f: Finding) -> str:
    """Return the positions of the first images, and how many more there are."""
    listed = ", ".join(map(str, f.images[:_MOST]))
    return listed + (f" and {len(f.images) - _MOST} more" if len(f.images) > _MOST else "")
