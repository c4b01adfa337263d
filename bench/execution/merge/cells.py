"""Choose the result of each cell among several results folders, where all that have one must agree bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.store.bits import other_bits
from bench.store.parts import CellRecord, Stored, stored
from defenses.utils.errors import UserError


def stored_whole(folder: Path) -> Stored:
    """Return the stored cells of a results folder.

    Raises:
        UserError: a part is damaged; it is named.
    """

    def refuse(part: Path, problem: str) -> None:
        raise UserError(f"{part}: {problem}; run the board again in {folder}, which redoes its cells")

    return stored(folder / "parts", refuse)


def chosen(folders: Sequence[Stored], started: Mapping[str, str]) -> tuple[Stored, list[CellRecord]]:
    """Return the result of every cell that a folder has, and the lines of the cells on which folders disagree.

    A finished cell stands before one that failed, one without failed images before one with some, then the earliest.

    Args:
        folders: stored cells of each.
        started: time at which each run began, by its id.
    """
    cells: Stored = {}
    pairs: dict[tuple[Path, Path], list[str]] = {}
    for key in dict.fromkeys(key for folder in folders for key in folder):
        found = sorted((folder[key] for folder in folders if key in folder), key=lambda at: _rank(at[0], started))
        cells[key] = found[0]
        for line, part in found[1:]:
            if _quality(line) == _quality(found[0][0]) and line["status"] == "ok":
                pairs.setdefault((found[0][1], part), []).append(key)
    differing = {key for (a, b), keys in pairs.items() for key in other_bits(a, b, keys)}
    return cells, [line for key, (line, _) in cells.items() if key in differing]


def _quality(line: CellRecord) -> tuple[bool, bool]:
    """Return (False, False) of a finished cell without an error; it sorts before all others."""
    return line["status"] != "ok", bool(line["error"]) and line["status"] != "unsupported"


def _rank(line: CellRecord, started: Mapping[str, str]) -> tuple[object, ...]:
    """Return the key by which the results of a cell are sorted; it does not depend on the order of the folders."""
    run = str(line.get("run", ""))
    return *_quality(line), started.get(run, ""), run, str(sorted(line.items(), key=lambda item: item[0]))
