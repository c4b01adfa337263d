"""Audits for people: plain text, Markdown, and one HTML page that needs no other file."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.audit.plot import as_svg
from bench.render import Table, to_markdown
from bench.text import clean

if TYPE_CHECKING:
    from bench.audit.finding import Finding
    from bench.audit.run import Audit

_STYLE = """
body { font-family: sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .3em .7em; text-align: left; vertical-align: top;
border-bottom: 1px solid #ddd } .pass { color: #2a6b34 } .fail { color: #a8201a; font-weight: bold }
.not { color: #777 } figure { display: inline-block; margin: .5em 1em .5em 0 } figcaption { font-size: .85em }
"""
_MOST = 12  # images that are named


def summary(audits: Sequence[Audit]) -> Table:
    """One line per defense."""
    rows = tuple((a.label, _threat(a), "fail" if a.failed else "pass", _counts(a), ", ".join(a.failed)) for a in audits)
    return Table("Audits", ("defense", "threat", "audit", "checks", "failed"), rows, left=5)


def as_text(made: Audit) -> str:
    """What was found of one defense, a line per check."""
    lines = [f"{made.label}, {_threat(made)}: {'FAILS the audit' if made.failed else 'passes the audit'}"]
    lines += [f"  {f.status:<14}  {f.check}: {clean(f.evidence)}" for f in made.findings]
    return "\n".join(lines)


def as_markdown(audits: Sequence[Audit]) -> str:
    """All audits: a summary, then a table per defense."""
    tables = [summary(audits)]
    for a in audits:
        rows = tuple((f.check, f.status, f.evidence, _images(f)) for f in a.findings)
        tables.append(Table(f"{a.label}, {_threat(a)}", ("check", "status", "evidence", "images"), rows, left=4))
    return to_markdown(tables)


def as_html(audits: Sequence[Audit]) -> str:
    """All audits, with their pictures in the page."""
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Audits</title><style>{_STYLE}</style>']
    parts.append("<h1>Audits</h1>" + _table(summary(audits)))
    for a in audits:
        rows = tuple((f.check, f.status, f.evidence, _images(f)) for f in a.findings)
        title = f"{a.label}, {_threat(a)}"
        parts.append(f"<h2>{_safe(title)}</h2>")
        parts.append(_table(Table(title, ("check", "status", "evidence", "images"), rows)))
        pictures = ((f.check, f.plot) for f in a.findings if f.plot is not None)
        parts += [f"<figure>{as_svg(p)}<figcaption>{_safe(name)}</figcaption></figure>" for name, p in pictures]
    return "\n".join([*parts, "</html>\n"])


def _table(table: Table) -> str:
    def cell(text: str) -> str:
        kind = text.split(" ")[0] if text in ("pass", "fail", "not applicable") else ""
        return f"<td{f' class={kind}' if kind else ''}>{_safe(text)}</td>"

    head = "".join(f"<th>{_safe(c)}</th>" for c in table.columns)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in table.rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _safe(text: str) -> str:
    return html.escape(clean(text))


def _threat(made: Audit) -> str:
    about = made.about
    return f"{about['norm']} {about['eps']} on {about['dataset']} ({about['images']} images, {about['budget']} budget)"


def _counts(made: Audit) -> str:
    statuses = [f.status for f in made.findings]
    return ", ".join(f"{statuses.count(s)} {s}" for s in ("pass", "fail", "not applicable") if s in statuses)


def _images(f: Finding) -> str:
    named = ", ".join(map(str, f.images[:_MOST]))
    return named + (f" and {len(f.images) - _MOST} more" if len(f.images) > _MOST else "")
