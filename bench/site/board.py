"""The page of a board: its leaderboard."""

from __future__ import annotations

from typing import Any

from bench.site.columns import FIRST, GROUPS, columns_of
from bench.site.commits import of_board
from bench.site.model import Site, SiteBoard, SiteRow
from bench.site.plots import Plots
from bench.site.text import page
from bench.spec.view_words import status_words
from defenses.utils.text import counted


def board_page(site: Site, board: SiteBoard, plots: Plots) -> str:
    """Return the page of a board; its pictures are added to `plots`."""
    columns = columns_of(board)
    shown = {group: title for group, title in GROUPS.items() if any(c.group == group for c in columns)}
    return page(
        "board.html.j2",
        title=board.title,
        depth=2,
        site=site.title,
        made=of_board(board),
        board=board,
        site_differences=site.differences,
        columns=columns,
        rows=[(row, _facts(row), [column.cell(row) for column in columns]) for row in board.rows],
        groups=shown,
        first=FIRST,
        filters=_filters(board),
        lines=board_lines(board),
        plots=plots.shown(board.pictures, f"{board.slug}/board", "../../"),
    )


def board_lines(board: SiteBoard) -> list[tuple[str, str]]:
    """Return what a board is, as (name, text)."""
    setting, ranked = board.setting, sum(row.ranked for row in board.rows)
    audited = sum(row.values["audit"] != "none" for row in board.rows)
    runs = board.source.runs
    last = f", last run {runs[-1].started[:10]}" if runs and runs[-1].started else ""
    data = f"{setting['dataset']}, {setting['split']}, {board.images} images ({setting['indices']})"
    draws = (
        f"{board.draws} of each randomised defense"
        if board.draws
        else "one verdict per image: no defense is randomised"
    )
    rows = f"{counted(len(board.rows), 'defense')}, {ranked} with a rank, {audited} audited{last}"
    return [
        ("data", data),
        ("threat", f"{board.threat}, {board.budget or 'full'} attacks"),
        ("draws", draws),
        ("rows", rows),
    ]


def unranked(row: SiteRow) -> tuple[str, str]:
    """Return why a row has no rank, in short and in full; empty for one that has."""
    if row.ranked:
        return "", ""
    status = str(row.values["status"])
    if status != "ok":
        return f"no rank: {status.partition(':')[0]}", f"no rank: {status_words(status)}"
    return "no rank: fails its audit", f"no rank: fails its audit ({row.values['audit_failed']})"


def _facts(row: SiteRow) -> dict[str, Any]:
    """Return what a row is filtered by."""
    return {
        "kind": "randomised" if row.values["stochastic"] else "deterministic",
        "audit": row.values["audit"],
        "claim": row.values["claim_verdict"] or "none known",
        "year": str(row.about.year or "none"),
        "why": unranked(row)[0],
        "reason": unranked(row)[1],
    }


_NAMES = {"kind": "kind", "audit": "audit", "claim": "claim", "year": "paper of"}


def _filters(board: SiteBoard) -> list[tuple[str, str, list[str]]]:
    """Return (name, title, values) of the filters that tell rows apart."""
    facts = [_facts(row) for row in board.rows]
    found = [(name, title, sorted({fact[name] for fact in facts})) for name, title in _NAMES.items()]
    return [(name, title, values) for name, title, values in found if len(values) > 1]
