"""The pages of a site that are no board: the first one, method, and how to reproduce."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.report.checklist import NAMES, Checklist, Item, read_checklist
from bench.report.table import Table
from bench.site.board import board_lines
from bench.site.columns import columns_of
from bench.site.commits import made_of, of_site
from bench.site.glossary import GLOSSARY
from bench.site.model import Site, SiteBoard, Source
from bench.site.plots import Plots
from bench.site.repeat import CLONE, commands, took
from bench.site.text import block, page
from defenses.utils.text import human_time


def index_page(site: Site, files: Mapping[str, str], plots: Plots) -> str:
    """Return the first page.

    Args:
        site: what it shows.
        files: data files of the site, with what they hold.
        plots: to which the pictures of the page are added.
    """
    cards = [_card(board) for board in site.boards]
    tracks = [(track, plots.shown(track.pictures, f"tracks/{track.slug}", "")) for track in site.tracks]
    return page(
        "index.html.j2",
        title=site.title,
        depth=0,
        site=site.title,
        made=of_site(site),
        cards=cards,
        tracks=tracks,
        files=files,
        made_of=made_of,
    )


def _card(board: SiteBoard) -> dict[str, Any]:
    """Return what the first page says of a board."""
    best = next((row for row in board.rows if row.ranked), None)
    column = next(column for column in columns_of(board) if column.key == "worst_mean")
    return {"board": board, "lines": board_lines(board), "best": best, "text": column.cell(best).text if best else ""}


def method_page(site: Site) -> str:
    """Return the page that says what the numbers mean."""
    lists = [(known, _counts(known.items), _groups(known)) for known in map(read_checklist, NAMES)]
    return page(
        "method.html.j2",
        title="Method",
        depth=0,
        site=site.title,
        made=of_site(site),
        glossary=GLOSSARY,
        checklists=lists,
    )


def _groups(checklist: Checklist) -> list[Table]:
    """Return a table for each group of the items of a checklist: what answers them in a report."""
    groups: dict[str, list[Item]] = {}
    for item in checklist.items:
        groups.setdefault(item.group, []).append(item)
    columns = ("item", "answered by", "which, or what is left to do")
    return [
        Table(group[:1].upper() + group[1:], columns, tuple((item.line, *_source(item)) for item in items), left=3)
        for group, items in groups.items()
    ]


def _source(item: Item) -> tuple[str, str]:
    """Return what answers an item of a checklist: the kind of source, and its name or a hint."""
    if item.audit:
        return "audit", "; ".join(item.audit)
    return ("results", item.field.replace("_", " ")) if item.field else ("by hand", item.hand)


def _counts(items: Iterable[Item]) -> str:
    """Return how many items each kind of source answers."""
    kinds = Counter(_source(item)[0] for item in items)
    return f"{kinds['results']} answered by results, {kinds['audit']} by audits, {kinds['by hand']} by hand"


def reproduce_page(site: Site) -> str:
    """Return the page with the commands, runs and checksums of all results."""
    by_source: dict[str, tuple[str, str]] = {}
    for board in site.boards:
        by_source.setdefault(board.source.name, (board.slug, board.title))
    by_source |= {track.source.name: (track.slug, track.title) for track in site.tracks}
    boards = {
        source.name: [board for board in site.boards if board.source.name == source.name] for source in site.sources
    }
    places = [_place(source, boards[source.name], *by_source.get(source.name, ("", ""))) for source in site.sources]
    return page(
        "reproduce.html.j2",
        title="Reproduce",
        depth=0,
        site=site.title,
        made=of_site(site),
        clone=block([*CLONE]),
        places=places,
        time=human_time,
    )


def _place(source: Source, boards: Sequence[SiteBoard], anchor: str, title: str) -> dict[str, Any]:
    """Return what is said of a results folder, of which a site has some boards."""
    lines = [line for board in boards for row in board.rows for line in row.lines]
    sums = [f"{sha}  {name}" for name, sha in source.files.items()]
    return {
        "source": source,
        "anchor": anchor or f"s-{source.name}",
        "title": title or source.name,
        "commands": block(commands(source, boards[0].name if boards else "", lines)),
        "took": took(source, lines),
        "sums": block(sums),
        "versions": _versions(source),
    }


def _versions(source: Source) -> list[tuple[str, str]]:
    """Return the sets of versions that runs had, each with the times of its runs."""
    found: dict[str, list[str]] = {}
    for run in source.runs:
        text = ", ".join(f"{name} {number}" for name, number in run.versions.items())
        found.setdefault(text, []).append(run.started.partition("T")[0] or "unknown")
    return [(text or "versions unknown", ", ".join(dict.fromkeys(starts))) for text, starts in found.items()]
