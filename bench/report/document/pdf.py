"""Write a document as PDF by Typst, which gets all texts as data and none as markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.report.document.json_form import as_json, block_json
from bench.report.document.model import Block, Code, Document, Drawing, Grid, left_out
from defenses.utils.errors import UserError
from defenses.utils.text import clean

_MISSING = "PDF needs Typst: pip install 'purebench[report]'"
_BREAK = re.compile(r"(?<=[/_.:=@])(?=[^\s\d])|(?<=\w{12})(?=\w{12})")  # within long words
_SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_WIDE, _HIGH = 88.0, 150.0  # of a picture, millimetres
_LINE = 160  # letters of a line of a table
_NUMBERS = 22  # letters of a column of numbers that is never broken
_SHORT, _NAME = 20, 30  # letters of most and of all texts of a column of words that is never broken
_ROOM = 45  # letters left for columns that share what others leave
_SPACE = "\u200b"  # of no width: a line may end there


def to_pdf(document: Document) -> bytes:
    """Return a document as tagged PDF without a date: the same bytes each time.

    It is PDF/UA-1 in Typst's own fonts; texts in other scripts need fonts of the machine, and are tagged all the same.

    Raises:
        UserError: Typst is not installed.
    """
    typst = check_typst()
    source = Path(__file__).with_name("document.typ").read_bytes()
    data = json.dumps(pdf_data(document))
    # The fonts that come with Typst: those of the machine would make other pages elsewhere.
    try:
        made: bytes = _compiled(typst, source, data, ignore_system_fonts=True, pdf_standards=["ua-1"])
    except typst.TypstError:  # a script that they lack
        made = _compiled(typst, source, data)
    return made


def check_typst() -> Any:
    """Return the module of Typst.

    Raises:
        UserError: it is not installed.
    """
    try:
        import typst
    except ImportError:
        raise UserError(_MISSING) from None
    return typst


def _compiled(typst: Any, source: bytes, data: str, **options: Any) -> Any:
    return typst.compile(source, format="pdf", sys_inputs={"data": data}, **options)


def pdf_data(document: Document) -> dict[str, Any]:
    """Return a document as the data of `document.typ`: without its long blocks, and words that may be broken."""
    content = as_json(document)
    for shown, section in zip(content["sections"], document.sections, strict=True):
        groups = groupby(section.blocks, lambda block: isinstance(block, Drawing))
        shown["blocks"] = [made for drawn, blocks in groups for made in _blocks(list(blocks), drawn=drawn)]
    return content


def _blocks(blocks: list[Block], *, drawn: bool) -> Iterator[dict[str, Any]]:
    """Yield blocks as data; pictures that follow each other stand side by side."""
    if drawn:
        yield {"kind": "pictures", "pictures": [_picture(b) for b in blocks if isinstance(b, Drawing)]}
    else:
        yield from map(_block, blocks)


def _picture(block: Drawing) -> dict[str, Any]:
    svg = block.drawn.outlines
    size = _SIZE.search(svg)
    width, height = (float(side) for side in size.groups()) if size else (1.0, 1.0)
    return {"text": clean(block.alt), "svg": svg, "width": min(_WIDE, _HIGH * width / height)}


def _block(block: Block) -> dict[str, Any]:
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
        content["widths"] = _widths(content)
    return content


def breakable(text: str) -> str:
    """Return a text whose long words have places to break."""
    return " ".join(_BREAK.sub(_SPACE, word) if len(word) > 14 else word for word in text.split(" "))


def _widths(content: dict[str, Any]) -> list[float]:
    """Return the share of the page that each column gets, by its texts; 0: as wide as they are."""
    heads, rows = content["columns"], content["rows"]
    columns = [[head, *(row[j].replace(_SPACE, "") for row in rows)] for j, head in enumerate(heads)]
    longest = [max(map(len, texts)) for texts in columns]
    if sum(longest) + 3 * len(longest) <= _LINE:
        return [0.0] * len(columns)
    usual = [sorted(map(len, texts[1:] or texts))[int(0.9 * (len(texts) - 1)) - 1] for texts in columns]
    lefts = content["left"]
    shared = {
        j
        for j, (most, some, left) in enumerate(zip(longest, usual, lefts, strict=True))
        if (most > _NAME or some > _SHORT if left else most > _NUMBERS)
    }
    while sum(longest[j] + 3 for j in range(len(columns)) if j not in shared) > _LINE - _ROOM:
        names = [j for j in range(len(columns)) if lefts[j] and j not in shared]
        if not names:
            break
        shared.add(max(names, key=lambda j: longest[j]))
    return [min(max(usual[j], 12), 60) ** 0.8 if j in shared else 0.0 for j in range(len(columns))]
