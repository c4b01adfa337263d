"""Write a document as PDF by Typst, which gets all texts as data and none as markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.report.document.json_form import as_json, block_json
from bench.report.document.model import Block, Code, Document, Drawing, Grid, left_out
from defenses.utils.errors import UserError
from defenses.utils.text import clean

_MISSING = "PDF needs Typst: pip install 'purebench[report]'"
_BREAK = re.compile(
    r"(?<=[/_.:=@])(?=[^\s\d])|(?<=[0-9a-f]{8})(?=[0-9a-f]{4})|(?<=\S{14})(?=\S{3})"
)  # within long words
_SPACE = "\u200b"  # of no width: a line may end there


def to_pdf(document: Document) -> bytes:
    """Return a document as tagged PDF without a date: the same bytes each time.

    It is PDF/UA-1 in Typst's own fonts; texts in other scripts need fonts of the machine, and are tagged all the same.

    Raises:
        UserError: Typst is not installed.
    """
    try:
        import typst
    except ImportError:
        raise UserError(_MISSING) from None
    source = Path(__file__).with_name("document.typ").read_bytes()
    data = json.dumps(pdf_data(document))
    # The fonts that come with Typst: those of the machine would make other pages elsewhere.
    try:
        made: bytes = _compiled(typst, source, data, ignore_system_fonts=True, pdf_standards=["ua-1"])
    except typst.TypstError:  # a script that they lack
        made = _compiled(typst, source, data)
    return made


def _compiled(typst: Any, source: bytes, data: str, **options: Any) -> Any:
    return typst.compile(source, format="pdf", sys_inputs={"data": data}, **options)


def pdf_data(document: Document) -> dict[str, Any]:
    """Return a document as the data of `document.typ`: without its long blocks, and words that may be broken."""
    content = as_json(document)
    for shown, section in zip(content["sections"], document.sections, strict=True):
        shown["blocks"] = [_block(block) for block in section.blocks]
    return content


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, Drawing):
        return {"kind": "picture", "text": clean(block.alt), "svg": block.outlines}
    if isinstance(block, Code | Grid) and block.long:
        return {"kind": "text", "text": left_out(block)}
    content = block_json(block)
    if isinstance(block, Code):
        content["lines"] = [breakable(line) for line in content["lines"]]
    if isinstance(block, Grid):
        table = block.table
        content["rows"] = [[breakable(text) for text in row] for row in content["rows"]]
        content["left"] = [table.is_left(j) for j in range(len(table.columns))]
        content["strong"] = sorted(table.strong)
        content["widths"] = _widths(content["columns"], content["rows"])
    return content


def breakable(text: str) -> str:
    """Return a text whose long words have places to break."""
    return " ".join(_BREAK.sub(_SPACE, word) if len(word) > 14 else word for word in text.split(" "))


def _widths(columns: list[str], rows: list[list[str]]) -> list[float]:
    """Return the share of the page that each column gets, by its texts; 0: as wide as its numbers."""
    widths = []
    for j, head in enumerate(columns):
        lengths = sorted(len(row[j].replace(_SPACE, "")) for row in rows) or [0]
        usual, longest = lengths[int(0.9 * (len(lengths) - 1))], lengths[-1]
        short = longest <= 16 and len(max(head.split(" "), key=len)) <= 16
        widths.append(0.0 if short else float(min(max(usual, 12), 60)))
    return widths if any(widths) else [0.0] * len(columns)
