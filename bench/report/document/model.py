"""A document before it is written in a format: sections of paragraphs, lists, tables, code and pictures.

All text is plain and untrusted: each writer escapes it and removes control characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bench.report.table import Table


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Args:
        text: plain.
    """

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list.

    Args:
        items: plain texts.
    """

    items: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Names with their texts.

    Args:
        lines: (name, text).
    """

    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """Lines of code or of checksums.

    Args:
        name: what they are, for those who hear the page.
        lines: the lines.
        long: True for lines that few will read: folded up on a page, left out of a print.
    """

    name: str
    lines: tuple[str, ...]
    long: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Args:
        table: its texts.
        links: addresses of cells by (row, column): of the web, or "#" and the name of a section.
        kinds: of cells, by their text: "good", "bad" or "warn".
        long: True for lines that few will read: folded up on a page, left out of a print.
    """

    table: Table
    links: Mapping[tuple[int, int], str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    long: bool = False


class Drawn(Protocol):
    """A picture, drawn when it is asked for."""

    @property
    def svg(self) -> str:
        """The picture as SVG, with text as text."""

    @property
    def outlines(self) -> str:
        """The picture as SVG with text as outlines, which needs no fonts."""


@dataclass(frozen=True)
class Drawing:
    """A picture.

    Args:
        alt: what it shows, in words.
        drawn: the picture.
    """

    alt: str
    drawn: Drawn


Block = Text | Bullets | Facts | Code | Grid | Drawing


@dataclass(frozen=True)
class Section:
    """A section.

    Args:
        name: for links, of letters, digits and "-".
        title: of the section.
        blocks: its contents, in order.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A document.

    Args:
        title: of the document.
        lead: what it is.
        sections: in order.
        made_by: with what it was written, in a few words.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    made_by: str

    def blocks(self) -> Iterator[Block]:
        """Yield all blocks in order."""
        for section in self.sections:
            yield from section.blocks


def left_out(block: Code | Grid) -> str:
    """Return what stands in place of a long block where it is left out."""
    name, count = (block.name, len(block.lines)) if isinstance(block, Code) else (block.table.title, block.table.rows)
    size = count if isinstance(count, int) else len(count)
    return f"{name}: {size} {'line' if size == 1 else 'lines'}, in the report as Markdown, HTML or JSON."
