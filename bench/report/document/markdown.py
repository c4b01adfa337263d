"""Write a document as GitHub's Markdown."""

from __future__ import annotations

from dataclasses import replace

from bench.report.document.model import Block, Bullets, Code, Document, Drawing, Facts, Grid, Section, Text
from bench.report.plain import markdown_text, to_markdown
from defenses.utils.text import clean


def to_markdown_document(document: Document) -> str:
    """Return a document as Markdown; pictures are told in words."""
    parts = [f"# {markdown_text(document.title)}", markdown_text(document.lead)]
    parts.append("\n".join(f"- [{markdown_text(s.title)}](#{s.name})" for s in document.sections))
    for section in document.sections:
        parts += _section(section)
    return "\n\n".join([*parts, f"Made by {markdown_text(document.made_by)}."]) + "\n"


def _section(section: Section) -> list[str]:
    head = f'<a id="{section.name}"></a>\n\n## {markdown_text(section.title)}'
    return [head, *(text for block in section.blocks if (text := _block(block)))]


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return markdown_text(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {markdown_text(item)}" for item in block.items)
    if isinstance(block, Facts):
        return "\n".join(f"- {markdown_text(name)}: {markdown_text(text)}" for name, text in block.lines)
    if isinstance(block, Code):
        return "\n".join([f"{markdown_text(block.name)}:", "", *(f"    {clean(line)}" for line in block.lines)])
    if isinstance(block, Grid):
        return _table(block)
    return f"*{markdown_text(block.alt)}*" if isinstance(block, Drawing) else ""


def _table(grid: Grid) -> str:
    """Return a table below its title; links follow their texts."""
    table = grid.table
    rows = tuple(
        tuple(_link(text, grid.links.get((i, j), "")) for j, text in enumerate(row)) for i, row in enumerate(table.rows)
    )
    return to_markdown(replace(table, rows=rows), level=3).rstrip("\n")


def _link(text: str, address: str) -> str:
    """Return a text with the address of the web that it leads to; anchors stand in the list of contents."""
    return text if not address.startswith(("https://", "http://")) else f"{text} ({address})"
