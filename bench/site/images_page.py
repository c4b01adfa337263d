"""The page of a row's images: which attack breaks which, as a table and as pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup, escape

from bench.site.commits import of_row
from bench.site.evidence import BROKEN, NONE, ONLY, STATES, WRONG, Column, Evidence
from bench.site.gallery import Gallery
from bench.site.model import Site, SiteBoard, SiteRow
from bench.site.pictures import figures
from bench.site.text import page
from bench.spec.view_words import status_words, view_words
from defenses.utils.text import clean, counted

MOST, CELLS = 1000, 20_000  # images, and verdicts of attacks, of a table
Places = list[tuple[Evidence, int]]


def images_page(site: Site, board: SiteBoard, row: SiteRow) -> str:
    """Return the page of the images of a row."""
    places = [(matrix, at) for matrix in row.evidence for at in range(len(matrix.index))]
    columns, missing = _columns(row)
    shown = places[: _most(len(columns))]
    return page(
        "images.html.j2",
        title=f"{row.label}, image by image",
        depth=2,
        site=site.title,
        made=of_row(board, row),
        crumbs=(("index.html", board.title), (f"{row.slug}.html", row.label)),
        board=board,
        row=row,
        lead=_lead(places),
        heads=[(board.columns.get(c, c[0]), view_words(c[1])) for c in columns],
        several=len(row.evidence) > 1,
        lines=list(_lines(shown, columns, board)),
        states=_states(places),
        labels=sorted({int(matrix.label[at]) for matrix, at in shown}),
        total=len(places),
        shown=len(shown),
        without=missing,
        random=bool(row.values["stochastic"]),
        galleries=list(_galleries(board, row, {anchor(m, at, row) for m, at in shown})),
        csv=f"images-{board.slug}.csv.gz",
    )


def anchor(matrix: Evidence, at: int, row: SiteRow) -> str:
    """Return the anchor of an image: "i17" by its dataset index; of further trainings with their seed."""
    first = not row.evidence or matrix.training_seed == row.evidence[0].training_seed
    return f"i{matrix.index[at]}" + ("" if first else f"-t{matrix.training_seed}")


def size_text(size: float, norm: str) -> str:
    """Return a size of a perturbation."""
    if math.isnan(size):
        return "none"
    if math.isinf(size):
        return "beyond eps"
    return f"{size:.0f}" if norm == "L0" else f"{size:.3f}"


def link_of(row: SiteRow, index: int) -> str:
    """Return the address of an image within the folder of its board; "" where the table does not hold it."""
    matrix = row.evidence[0] if row.evidence else None
    most = _most(len(_columns(row)[0]))
    held = matrix is not None and index in matrix.index[:most]
    return f"{row.slug}-images.html#i{index}" if held else ""


def _most(columns: int) -> int:
    """Return how many images a table shows."""
    return min(MOST, CELLS // max(1, columns))


def _columns(row: SiteRow) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the attacks with verdicts, and (attack, why) of those without."""
    columns = {(c.attack, c.view): c.status for matrix in row.evidence for c in matrix.columns}
    judged = {
        (c.attack, c.view) for m in row.evidence for c in m.columns if not all(math.isnan(share) for share in c.shares)
    }
    return [c for c in columns if c in judged], [(c[0], status_words(columns[c])) for c in columns if c not in judged]


def _lead(places: Places) -> str:
    """Return how many images are in which state."""
    if not places:
        return "No image has a verdict yet."
    counts = Counter(state for matrix, at in places for state in matrix.states[at])
    only = f", {counts[ONLY]} of them by adaptive attacks only" if counts[ONLY] else ""
    broken = f"Attacks break {counts[BROKEN]} of {counted(len(places), 'image')}{only}."
    return (
        f"{broken} Withstanding every attack: {counts[NONE]}. Wrong without any attack: {counts[WRONG]}. An image is "
        "broken if fewer than half of the draws withstand an attack on it."
    )


def _states(places: Places) -> list[tuple[str, str, int]]:
    """Return (state, text, number of images) of the states that occur."""
    counts = Counter(state for matrix, at in places for state in matrix.states[at])
    return [(state, text, counts[state]) for state, text in STATES.items() if counts[state]]


def _lines(places: Places, columns: list[tuple[str, str]], board: SiteBoard) -> Iterator[Markup]:
    """Yield the rows of the table."""
    norm = board.setting["norm"]
    by_matrix: dict[int, dict[tuple[str, str], int]] = {}
    seeds = len({matrix.training_seed for matrix, _ in places}) > 1
    for matrix, at in places:
        own = by_matrix.setdefault(
            id(matrix), {(c.attack, c.view): position for position, c in enumerate(matrix.columns)}
        )
        first = places[0][0].training_seed == matrix.training_seed
        name = f"i{matrix.index[at]}" + ("" if first else f"-t{matrix.training_seed}")
        states, label = " ".join(matrix.states[at]), int(matrix.label[at])
        cells = [f'<tr id="{name}" data-state="{states}" data-label="{label}"><th scope="row">{matrix.index[at]}</th>']
        cells += [f"<td>{matrix.training_seed}</td>"] if seeds else []
        cells += [f"<td>{label}</td>", _share(float(matrix.clean[at]), "" if matrix.right[at] else "✗")]
        cells += [_cell(matrix, own.get(column), at) for column in columns]
        yield Markup("".join(cells)) + _decided(matrix, at, board, norm)


def _cell(matrix: Evidence, column: int | None, at: int) -> str:
    """Return the cell of an attack."""
    if column is None:
        return '<td class="q">not run</td>'
    found = matrix.columns[column]
    symbol = "✗" if found.shares[at] < 0.5 and matrix.right[at] else ""
    return _share(float(found.shares[at]), "⊘" if symbol and found.refused[at] > 0.5 else symbol)


def _share(share: float, symbol: str) -> str:
    """Return a share of draws as a cell, of one of five backgrounds."""
    if math.isnan(share):
        return '<td class="q">none</td>'
    text = f"{share:.0f}" if share in (0, 1) else f"{share:.2f}"
    return f'<td class="h{min(4, int(5 * share))}">{text}{" " if symbol else ""}{symbol}</td>'


def _decided(matrix: Evidence, at: int, board: SiteBoard, norm: str) -> Markup:
    """Return the last cells of an image: worst case, attack that decides, size of its perturbation."""
    worst, chosen = float(matrix.worst[at]), int(matrix.deciding[at])
    if math.isnan(worst):
        return Markup('<td class="q">none</td><td class="t q">no verdict of all attacks</td><td></td></tr>')
    share = Markup(_share(worst, ""))
    if worst == 1:
        return share + Markup('<td class="t q">none</td><td></td></tr>')
    if chosen < 0:
        return share + Markup('<td class="t">clean image</td><td></td></tr>')
    column = matrix.columns[chosen]
    name = escape(clean(board.columns.get((column.attack, column.view), column.attack)))
    return share + Markup(f'<td class="t">{name}</td><td>{size_text(float(column.sizes[at]), norm)}</td></tr>')


def _galleries(board: SiteBoard, row: SiteRow, anchors: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the galleries of a row: of the attack that breaks most images first."""
    worst = (row.values["worst_attack"], row.values["worst_view"])
    found = [(m, c, row.galleries[c.cells[0]]) for m in row.evidence for c in m.columns if c.cells[0] in row.galleries]
    found = sorted(found, key=lambda g: (g[1].attack, g[1].view) != worst)
    for number, (matrix, column, gallery) in enumerate(found):
        shown = links(matrix, gallery, row, anchors)
        yield {
            "name": column.attack,
            "view": view_words(column.view),
            "seed": matrix.training_seed if len(row.evidence) > 1 else None,
            "strong": (column.attack, column.view) == worst,
            "figures": figures(gallery, board.setting["norm"], shown, sheet_id=f"sheet-{number}"),
            "said": _said(gallery, column),
        }


def links(matrix: Evidence, gallery: Gallery, row: SiteRow, anchors: set[str], page: str = "") -> Mapping[int, str]:
    """Return the addresses of the images of a gallery by dataset index, of those that the table holds."""
    names = {shown.index: anchor(matrix, shown.at, row) for shown in gallery.shown}
    return {index: f"{page}#{name}" for index, name in names.items() if name in anchors}


def _said(gallery: Gallery, column: Column) -> str:
    """Return what is said of the pictures of a gallery."""
    if gallery.sheet is None:
        return f"No pictures: {gallery.absent}."
    texts = [] if column.secret else ["This attacker knows the judged draw."]
    if gallery.sheet.panels == 1:
        texts += ["The adversarial images alone: no clean images are stored of this defense."]
    if gallery.sheet.count < gallery.asked:
        texts += [f"The first {gallery.sheet.count} of {gallery.asked} that were asked for: a sheet is no larger."]
    return " ".join(texts)
