"""Write a document as one page of HTML that asks for nothing: no script, no file, no address."""

from __future__ import annotations

import base64

from markupsafe import Markup, escape

from bench.report.document.model import Block, Document
from bench.report.html import environment
from defenses.utils.text import clean


def to_html_document(document: Document) -> str:
    """Return a document as a page of HTML; pictures are part of it."""
    template = environment("bench.report.document").get_template("document.html.j2")
    return template.render(document=document, kind=_kind, picture=_picture, linked=_linked, block=_lines)


def _kind(block: Block) -> str:
    return type(block).__name__.lower()


def _picture(svg: str) -> Markup:
    """Return a picture as the address of an <img>, in which scripts do not run."""
    return Markup("data:image/svg+xml;base64,{}").format(base64.b64encode(svg.encode()).decode())


def _linked(text: str, address: str | None) -> Markup:
    """Return the text of a cell, as a link where it has an address of the web or of a section."""
    shown = escape(clean(text))
    if not address or not address.startswith(("https://", "http://", "#")):
        return shown
    outside = Markup("") if address.startswith("#") else Markup(' rel="noreferrer"')
    return Markup('<a href="{}"{}>{}</a>').format(clean(address), outside, shown)


def _lines(lines: tuple[str, ...]) -> Markup:
    return Markup("\n").join(escape(clean(line)) for line in lines)
