"""The page of a board that compares it with an earlier run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.diff.difference import Difference, diff_runs
from bench.report.diff import NOTES, changes_table, counts, environment_table, points, row_title
from bench.site.commits import of_board
from bench.site.model import Site, SiteBoard, SiteRow
from bench.site.sources import shown
from bench.site.text import page, percent
from bench.spec.view_words import view_words
from bench.store.kinds import refuse_other_kind
from bench.store.manifest import read_manifest
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_LISTED = 20  # images of a row
_STATES = {"differs": "warn", "ties": "q", "agrees": "q"}


def earlier_runs(results: Sequence[Path], against: Iterable[Path]) -> dict[Path, Path]:
    """Return the earlier run of each results folder that has one, by the name of its board.

    Args:
        results: folders of a site.
        against: folders of earlier runs.

    Raises:
        UserError: a folder of no board, of none of the boards of the site, or a second one of a board.
    """
    found: dict[Path, Path] = {}
    boards = {folder: read_manifest(folder).get("board", folder.name) for folder in results}
    for old in {folder.resolve(): folder for folder in against}.values():
        refuse_other_kind(old, "load_results")
        name = read_manifest(old).get("board", old.name)
        new = [folder for folder, board in boards.items() if board == name]
        if not new:
            names = ", ".join(dict.fromkeys(str(board) for board in boards.values()))
            raise UserError(f'{old} is of the board "{name}", of which the site has no results; it has {names}')
        if len(new) > 1 or new[0] in found:
            raise UserError(f'the board "{name}" has several results folders; compare one with one')
        found[new[0]] = old
    return found


def differences_of(runs: Mapping[Path, Path]) -> dict[str, Difference]:
    """Return the differences of results folders to their earlier runs, by the name of the folder in the site."""
    return {shown(new): diff_runs(old, new) for new, old in runs.items()}


def diff_page(site: Site, board: SiteBoard, difference: Difference) -> str:
    """Return the page that compares a board with an earlier run.

    Args:
        site: the site.
        board: the board.
        difference: of its results folder to the earlier run, of all its threats.
    """
    here = difference.rows[_of_board(difference.rows, board)]
    images = difference.images[_of_board(difference.images, board)]
    flips: dict[tuple[Any, ...], dict[str, list[int]]] = {}
    for image in images[images["flip"] != ""].to_dict("records"):
        flips.setdefault(_name(image), {}).setdefault(image["flip"], []).append(image["image"])
    rows = {row.label: row for row in board.rows}
    changed = here[here["state"] != "same"].to_dict("records")
    return page(
        "diff.html.j2",
        title=f"{board.title}: changes",
        depth=2,
        site=site.title,
        made=of_board(board),
        crumbs=(("index.html", board.title),),
        board=board,
        old=shown(Path(difference.old)),
        counts=counts(difference),
        differs=difference.differs,
        lines=[_line(row, flips.get(_name(row), {}), rows) for row in changed],
        total=len(here),
        notes=NOTES,
        tables=[t for t in (changes_table(difference), environment_table(difference)) if t.rows],
        warnings=difference.warnings,
    )


def _of_board(frame: pd.DataFrame, board: SiteBoard) -> pd.Series[Any]:
    """Return True for the rows of a frame that are of the threat of a board."""
    names = ("norm", "eps", "targets")
    keep: pd.Series[Any] = frame["norm"] == board.setting["norm"]
    for name in names[1:]:
        keep &= frame[name] == board.setting[name]
    return keep


def _name(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("defense", "training_seed", "attack", "view", "dataset", "split"))


def _line(row: Mapping[Any, Any], flips: Mapping[str, Sequence[int]], rows: Mapping[str, SiteRow]) -> dict[str, Any]:
    """Return what is shown of a row."""
    n = int(row["n"])
    known = rows.get(str(row["defense"]))
    return {
        "row": row,
        "title": row_title(row),
        "view": view_words(str(row["view"])),
        "slug": "" if known is None else known.slug,
        "images": str(n) if n == row["n_old"] == row["n_new"] else f"{n} of {row['n_old']}, {row['n_new']}",
        "old": percent(row["old_mean"], n) if n else "",
        "new": percent(row["new_mean"], n) if n else "",
        "points": points(row) if n else "",
        "known": n > 0,
        "kind": _STATES[str(row["state"])],
        "lost": _listed(flips.get("lost", ())),
        "won": _listed(flips.get("won", ())),
    }


def _listed(images: Sequence[int]) -> str:
    """Return the first images of some, and how many more there are."""
    more = len(images) - _LISTED
    return " ".join(map(str, images[:_LISTED])) + (f" and {more} more" if more > 0 else "")
