"""SVG files of matplotlib's made small, and with colours for dark screens."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TAG = re.compile(r"<[a-zA-Z][^<>]*>")  # texts have no < or > that is not escaped
_PLACE = re.compile(r'(\s(?:d|x|y)=")([^"]*)"')
_UPRIGHT = re.compile(r' transform="rotate\(-0 [^"]*\)"')
_INDENT = re.compile(r"\n\s+<")
_GROUP = re.compile(r"(<g(?: [^<>]*)?(?<!/)>|</g>)")
_PLAIN = re.compile(r'<g(?: id="[^"]*")?>')
_NUMBER = re.compile(r"-?\d+\.\d+")
_MARKS = re.compile(r'(?:\s*<use xlink:href="[^"]*" x="[^"]*" y="[^"]*" (?P<style>style="[^"]*")/>)'
                    r'(?:\s*<use xlink:href="[^"]*" x="[^"]*" y="[^"]*" (?P=style)/>)+')  # fmt: skip
_LINES = re.compile(r'<path d="[^"]*"(?P<look>[^<>]* style="fill: none; stroke: #\w{6}; stroke-width: [\d.]+")/>'
                    r'(?:\s*<path d="[^"]*"(?P=look)/>)+')  # fmt: skip


def compact(svg: str) -> str:
    """Return an SVG of matplotlib's that shows the same with fewer bytes.

    Coordinates are rounded to hundredths of a point; marks of one look say it once; lines of one look, as intervals,
    are one path; groups that have a name alone are left out.

    Args:
        svg: as matplotlib writes it.
    """
    rounded = _ungrouped(_TAG.sub(lambda tag: _PLACE.sub(_round, _UPRIGHT.sub("", tag[0])), svg))
    return _INDENT.sub("\n<", _LINES.sub(_joined, _MARKS.sub(_grouped, rounded)))


def with_dark(svg: str, colours: Mapping[str, str]) -> str:
    """Return an SVG with other colours on a dark screen.

    Args:
        svg: of matplotlib.
        colours: colour on a dark screen for colours of the picture, as "#1b1f24".
    """
    rules = "".join(
        f'[style*="{name}: {colour}"]{{{name}:{dark} !important}}'
        for colour, dark in colours.items()
        for name in ("fill", "stroke")
    )
    css = f"<style>@media screen and (prefers-color-scheme: dark){{{rules}}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda match: match[1] + css, svg, count=1)


def _ungrouped(svg: str) -> str:
    """Return an SVG without the groups that change nothing of what is in them."""
    kept: list[str] = []
    opened: list[bool] = []  # of the groups around: True if it stays
    for piece in _GROUP.split(svg):
        stays = opened.pop() if piece == "</g>" else _PLAIN.fullmatch(piece) is None
        if piece.startswith(("<g>", "<g ")):
            opened.append(stays)
        if stays:
            kept.append(piece)
    return re.sub(r"\n\s*\n", "\n", "".join(kept))


def _round(match: re.Match[str]) -> str:
    numbers = _NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), match[2])
    return f'{match[1]}{" ".join(numbers.split())}"'


def _grouped(match: re.Match[str]) -> str:
    """Return marks without their look, in a group that has it."""
    style = match["style"]
    return f"\n<g {style}>{match[0].replace(f' {style}', '')}\n</g>"


def _joined(match: re.Match[str]) -> str:
    places = re.findall(r'<path d="([^"]*)"', match[0])
    return f'<path d="{" ".join(places)}"{match["look"]}/>'
