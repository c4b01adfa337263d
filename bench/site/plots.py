"""Pictures of results on pages: an SVG file each, what it shows in words, and its numbers as a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from bench.figures.picture import Picture
from bench.report.format import number
from bench.report.table import Table
from bench.site.text import missing
from bench.spec.view_words import view_words

FOLDER = "p"
_MOST = 120  # rows of a table of numbers
_SHARES = re.compile(
    r"(worst|clean|robust|claimed|measured)_(mean|low|high|robust)|share|low|high|value|limit|accuracy|certified|clean|worst"
)
_SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')


class Plots:
    """The pictures of a site: their files, and what pages show of them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._shown: dict[int, tuple[Picture, str, dict[str, object]]] = {}  # by id of the picture

    def shown(self, pictures: Iterable[Picture], name: str, root: str) -> list[dict[str, object]]:
        """Return what a page shows of pictures, whose files are kept; one that another page has is not drawn again.

        Args:
            pictures: the pictures.
            name: start of the names of the files, of letters, digits, "-" and "/".
            root: way from the page to the first page, as "../../".
        """
        shown, counts = [], Counter[str]()
        for picture in pictures:
            counts[picture.name] += 1
            number = f"-{counts[picture.name]}" if counts[picture.name] > 1 else ""
            _, path, texts = self._drawn(picture, f"{FOLDER}/{name}-{picture.name}{number}.svg")
            shown.append({"src": f"{root}{path}", **texts})
        return shown

    def _drawn(self, picture: Picture, path: str) -> tuple[Picture, str, dict[str, object]]:
        """Return a picture, the path of its file, and what a page says of it."""
        if id(picture) not in self._shown:
            svg = picture.svg
            self.files[path] = svg.encode()
            size = _SIZE.search(svg)
            width, height = (round(float(side) * 4 / 3) for side in size.groups()) if size else (0, 0)  # points: pixels
            numbers = _table(picture.numbers, picture.alt) if len(picture.numbers) <= _MOST else None
            texts = {"alt": picture.alt, "width": width, "height": height, "numbers": numbers}
            self._shown[id(picture)] = picture, path, texts
        return self._shown[id(picture)]


def _table(frame: pd.DataFrame, title: str) -> Table | None:
    if frame.empty or not len(frame.columns):
        return None
    names = [str(name) for name in frame]
    heads = [f"{name} %" if _SHARES.fullmatch(name) else name for name in names]
    rows = [
        tuple(_text(name, value) for name, value in zip(names, row, strict=True))
        for row in frame.itertuples(index=False)
    ]
    left = next((at for at, name in enumerate(names) if not isinstance(frame[name].iloc[0], str)), len(names))
    return Table(title, tuple(head.replace("_", " ") for head in heads), tuple(rows), left=max(left, 1))


def _text(name: str, value: object) -> str:
    if missing(value) or value is pd.NA:
        return "–"
    if isinstance(value, str):
        return view_words(value) if name == "view" else value
    return f"{100 * float(value):.1f}" if _SHARES.fullmatch(name) else number(float(value))  # type: ignore[arg-type]
