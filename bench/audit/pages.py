"""Audits for people: plain text, Markdown, and one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.audit.svg import as_svg
from bench.report.html import html_table, html_text, page
from bench.report.plain import to_markdown
from bench.report.table import Table
from defenses.utils.text import clean

if TYPE_CHECKING:
    from bench.audit.findings import Audit, Finding

_STYLE = """
td { white-space: normal; vertical-align: top; } td:nth-child(2) { min-width: 8rem; }
.pass { color: #2a7a3b; } .fail { color: #c9302c; font-weight: 600; } .not { color: var(--soft); }
.plots { display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin: -1.5rem 0 3rem; } figure { margin: 0; }
figcaption { font-size: .85rem; font-weight: 600; } figure text { fill: currentColor; }
figure path { stroke: var(--soft); }
"""
_KINDS = {"pass": "pass", "fail": "fail", "not applicable": "not"}
_MOST = 12  # images that are named


def summary(audits: Sequence[Audit]) -> Table:
    """One line per defense."""
    rows = tuple((a.label, _threat(a), "fail" if a.failed else "pass", _counts(a), ", ".join(a.failed)) for a in audits)
    return Table("Summary", ("defense", "threat", "audit", "checks", "failed"), rows, left=5)


def as_text(made: Audit) -> str:
    """What was found of one defense, a line per check."""
    lines = [f"{made.label}, {_threat(made)}: {'FAILS the audit' if made.failed else 'passes the audit'}"]
    lines += [f"  {f.status:<14}  {f.check}: {clean(f.evidence)}" for f in made.findings]
    return "\n".join(lines)


def as_markdown(audits: Sequence[Audit]) -> str:
    """All audits: a summary, then a table per defense."""
    return to_markdown([summary(audits), *map(_findings, audits)])


def as_html(audits: Sequence[Audit]) -> str:
    """All audits, with their pictures in the page."""
    return page("Audits", html_table(summary(audits), _KINDS) + "".join(map(_section, audits)), _STYLE)


def _section(made: Audit) -> str:
    plots = [(f.check, f.plot) for f in made.findings if f.plot is not None]
    figures = [f"<figure><figcaption>{html_text(name)}</figcaption>{as_svg(plot)}</figure>" for name, plot in plots]
    return "\n".join([html_table(_findings(made), _KINDS), '<div class="plots">', *figures, "</div>\n"])


def _findings(made: Audit) -> Table:
    rows = tuple((f.check, f.status, f.evidence, _images(f)) for f in made.findings)
    return Table(f"{made.label}, {_threat(made)}", ("check", "status", "evidence", "images"), rows, left=4)


def _threat(made: Audit) -> str:
    about = made.about
    return f"{about['norm']} {about['eps']} on {about['dataset']} ({about['images']} images, {about['budget']} budget)"


def _counts(made: Audit) -> str:
    statuses = [f.status for f in made.findings]
    return ", ".join(f"{statuses.count(s)} {s}" for s in ("pass", "fail", "not applicable") if s in statuses)


def _images(f: Finding) -> str:
    named = ", ".join(map(str, f.images[:_MOST]))
    return named + (f" and {len(f.images) - _MOST} more" if len(f.images) > _MOST else "")
