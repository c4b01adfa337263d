"""Write a document as JSON: the same texts as in the other formats, block by block."""

from __future__ import annotations

from typing import Any

from bench.report.document.model import Block, Bullets, Code, Document, Facts, Grid, Section, Text
from defenses.utils.text import clean


def as_json(document: Document) -> dict[str, Any]:
    """Return a document as values of JSON; pictures are told in words."""
    return {
        "title": clean(document.title),
        "lead": clean(document.lead),
        "made_by": clean(document.made_by),
        "sections": [_section(section) for section in document.sections],
    }


def _section(section: Section) -> dict[str, Any]:
    blocks = [block_json(block) for block in section.blocks]
    return {"name": section.name, "title": clean(section.title), "blocks": blocks}


def block_json(block: Block) -> dict[str, Any]:
    """Return a block as values of JSON; its key "kind" tells what it is."""
    if isinstance(block, Text):
        return {"kind": "text", "text": clean(block.text)}
    if isinstance(block, Bullets):
        return {"kind": "list", "items": [clean(item) for item in block.items]}
    if isinstance(block, Facts):
        return {"kind": "facts", "facts": [{"name": clean(name), "text": clean(text)} for name, text in block.lines]}
    if isinstance(block, Code):
        return {"kind": "code", "name": clean(block.name), "lines": [clean(line) for line in block.lines]}
    if isinstance(block, Grid):
        return _table(block)
    return {"kind": "picture", "text": clean(block.alt)}


def _table(grid: Grid) -> dict[str, Any]:
    table = grid.table
    links = [{"row": i, "column": j, "address": clean(to)} for (i, j), to in sorted(grid.links.items())]
    return {
        "kind": "table",
        "title": clean(table.title),
        "columns": [clean(text) for text in table.columns],
        "rows": [[clean(text) for text in row] for row in table.rows],
        "notes": [clean(note) for note in table.footnotes],
        "links": links,
    }
