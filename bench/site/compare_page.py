"""The page that compares the defenses of a board two by two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bench.report.format import count
from bench.site.commits import of_board
from bench.site.images_page import link_of
from bench.site.model import Site, SiteBoard, SiteRow
from bench.site.pairs import ALL, Pair
from bench.site.text import interval, page, percent


def compare_page(site: Site, board: SiteBoard) -> str:
    """Return the page of the pairs of a board."""
    rows = {row.label: row for row in board.rows}
    lines = [_line(pair, rows) for pair in board.pairs]
    compared = {label for pair in board.pairs for label in (pair.a, pair.b)}
    return page(
        "compare.html.j2",
        title=f"Pairs of {board.title}",
        depth=2,
        site=site.title,
        made=of_board(board),
        crumbs=(("index.html", board.title),),
        board=board,
        lines=lines,
        rows=[row for row in board.rows if row.label in compared],
        neighbours=len(compared) > ALL,
        apart=sum(line["apart"] for line in lines),
    )


def _line(pair: Pair, rows: Mapping[str, SiteRow]) -> dict[str, Any]:
    """Return what is shown of a pair."""
    a, b, n = rows[pair.a], rows[pair.b], pair.images
    words, kind = _verdict(pair)
    known = not math.isnan(pair.only_a)
    return {
        "pair": pair,
        "a": a,
        "b": b,
        "worst": [_worst(row) for row in (a, b)],
        "difference": "" if not n else f"{100 * pair.difference:+.1f} {_ends(pair)}",
        "counts": [count(v) for v in (pair.only_a, pair.only_b)]
        if known
        else ["several trainings"] * 2
        if n
        else ["", ""],
        "p": "" if not known else "< 0.0001" if pair.p_value < 1e-4 else f"{pair.p_value:.4f}",
        "words": words,
        "kind": kind,
        "apart": kind == "good",
        "images": [
            " ".join(str(i) for i in found if link_of(row, i)) for row, found in ((a, pair.of_a), (b, pair.of_b))
        ],
    }


def _verdict(pair: Pair) -> tuple[str, str]:
    if not pair.images:
        return pair.status, "warn"
    if pair.low > 0:
        return f"{pair.a} withstands more", "good"
    if pair.high < 0:
        return f"{pair.b} withstands more", "good"
    return "cannot be told apart", "q"


def _worst(row: SiteRow) -> str:
    """Return the worst case of a row with its interval."""
    n, values = int(row.values["n_images"]), row.values
    return f"{percent(values['worst_mean'], n)} {interval(values['worst_low'], values['worst_high'], n)}"


def _ends(pair: Pair) -> str:
    return f"[{100 * pair.low:+.1f}, {100 * pair.high:+.1f}]"
