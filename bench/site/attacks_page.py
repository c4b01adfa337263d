"""The page of a board's attacks: what each of them does to each defense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from bench.analysis.caveats import split_warnings
from bench.report.row_text import NAMES
from bench.site.commits import of_board
from bench.site.images_page import link_of
from bench.site.model import Site, SiteBoard, SiteRow, slugs
from bench.site.plots import Plots
from bench.site.row_attacks import attack_texts
from bench.site.text import page

_LISTED = 6  # images that an attack alone breaks, listed in its row
_DRAWN = 12  # rows whose pictures stand on the page
_LINES = 1500  # of all tables of a page


def attacks_page(site: Site, board: SiteBoard, plots: Plots) -> str:
    """Return the page of the attacks of a board; its pictures are added to `plots`."""
    anchors = attack_anchors(board)
    costs = [picture for picture in board.pictures if picture.name == "cost"]
    return page(
        "attacks.html.j2",
        title=f"Attacks of {board.title}",
        depth=2,
        site=site.title,
        made=of_board(board),
        crumbs=(("index.html", board.title),),
        board=board,
        attacks=[_attack(board, label, anchor, max(10, _LINES // len(anchors))) for label, anchor in anchors.items()],
        random=any(row.values["stochastic"] for row in board.rows),
        plots=plots.shown((*costs, *board.convergence), board.slug, "../../"),
        drawn=[shown for row in board.rows[:_DRAWN] for shown in _of_row(board, row, plots)],
        most=_DRAWN,
    )


def _of_row(board: SiteBoard, row: SiteRow, plots: Plots) -> list[dict[str, object]]:
    """Return the picture of the attacks on a row, which its own page shows as well."""
    found = [picture for picture in row.pictures if picture.name == "attacks"]
    return plots.shown(found, f"{board.slug}/{row.slug}", "../../")


def attack_anchors(board: SiteBoard) -> dict[str, str]:
    """Return the anchors of the attacks of a board by label, in board order; clean images and noise come last."""
    labels = dict.fromkeys(attack for attack, _ in board.columns if attack != "worst case")
    planned = dict.fromkeys(str(a["attack"]) for row in board.rows for a in row.attacks)
    ordered = sorted({**labels, **planned}, key=lambda label: label in NAMES)
    return {label: f"a-{slug}" for label, slug in zip(ordered, slugs(ordered), strict=True)}


def _attack(board: SiteBoard, label: str, anchor: str, most: int) -> dict[str, Any]:
    """Return what is shown of an attack."""
    found = [(row, a) for row in board.rows for a in row.attacks if a["attack"] == label]
    warned = [split_warnings(str(a["warnings"] or ""))[0] for _, a in found if a["robust_mean"] is not None]
    shared = [text for text in (warned[0] if len(warned) > 1 else []) if all(text in texts for texts in warned)]
    return {
        "shared": shared,
        "name": NAMES.get(label, label),
        "anchor": anchor,
        "attacked": label not in NAMES,
        "recipes": list(_recipes(found)),
        "lines": [_line(row, a, shared) for row, a in found[:most]],
        "more": f"The first {most} of {len(found)} lines; the others are on the pages of their defenses."
        if len(found) > most
        else "",
    }


def _line(row: SiteRow, attack: Mapping[str, Any], shared: list[str]) -> dict[str, Any]:
    """Return what is shown of an attack on a row; warnings of all rows stand above the table."""
    own = [text for text in split_warnings(str(attack["warnings"] or ""))[0] if text not in shared]
    return {**attack_texts({**attack, "warnings": "; ".join(own)}, row), "row": row, "alone": _alone(row, attack)}


def _recipes(found: list[tuple[SiteRow, Mapping[str, Any]]]) -> Iterator[tuple[str, str]]:
    """Yield (parameters in full, defenses they ran on) of the different forms of an attack."""
    forms: dict[str, dict[str, None]] = {}
    for row, attack in found:
        recipe = row.recipes.get((attack["attack"], attack["view"]))
        if recipe is not None and recipe.name:
            forms.setdefault(recipe.text, {})[row.label] = None
    for text, labels in forms.items():
        yield text, "" if len(forms) == 1 else ", ".join(labels)


def _alone(row: SiteRow, attack: Mapping[str, Any]) -> Markup:
    """Return the number of images that an attack alone breaks, and the first of them as links."""
    indices = [
        int(index)
        for matrix in row.evidence[:1]
        for at, column in enumerate(matrix.columns)
        if (column.attack, column.view) == (attack["attack"], attack["view"])
        for index in matrix.alone(at)
    ]
    if not indices:
        return Markup("0")
    links = Markup(" ").join(_link(row, index) for index in indices[:_LISTED])
    return Markup("{}: {}{}").format(len(indices), links, " …" if len(indices) > _LISTED else "")


def _link(row: SiteRow, index: int) -> Markup:
    address = link_of(row, index)
    return Markup('<a href="{}">{}</a>').format(address, index) if address else Markup(str(index))
