"""The difference of two runs of a board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.analysis.diff.cells import DIFFERENT, KINDS, RowCells, paired_cells
from bench.analysis.diff.environment import environments, warnings_of
from bench.analysis.diff.identity import identity_changes
from bench.analysis.diff.rows import compared_rows
from bench.analysis.diff.side import NAMES, RowName, RunSide, read_side
from bench.analysis.public_names import public
from bench.store.manifest import check_one_board, read_manifest
from defenses.utils.errors import UserError

CHANGE_COLUMNS = (*NAMES, "what", "old", "new", "cells")


@dataclass(frozen=True, eq=False, repr=False)
class Difference:
    """The difference of two runs of a board.

    Args:
        old: the results folder of the old run.
        new: that of the new one.
        title: of the board.
        cells: number of cells by kind: "same" (bits), "agree" (other bits, the same verdicts), "ties" (other verdicts
            in ties alone, as `purebench verify` counts them), "differ", "other_key" (the same row and images under
            another key), "only_old", "only_new", "status" (finished in one run, failed in the other).
        rows: a row per defense, attack, view and threat, each defense followed by its worst case: its names;
            `eps_value`, the radius as a number; `state`, "same", "agrees", "ties" or "differs"; `n_old`, `n_new` and
            `n` images with a verdict in the old run, the new one, both; `old_mean`, `new_mean`, shares in [0, 1] over
            the `n` images; `difference`, new minus old, with its 95 % interval `low`, `high`
            (`bench.stats.paired.paired_difference`); `differing` images, `tied` of them, and those `lost` (mostly right
            in the old run alone) and `won`; `cells_same` and so on, the numbers of cells by kind.
        images: a row per row and image that differs: `image`; `old`, `new`, shares of right draws; `tie`; `flip`,
            "lost", "won" or "".
        changes: a row per row and changed part of its cells' keys: `what`, `old`, `new`, `cells`.
        environment: (what, old, new) of libraries and machines.
        warnings: ("new" or "gone", defense, text).
    """

    old: str
    new: str
    title: str
    cells: Mapping[str, int]
    rows: pd.DataFrame
    images: pd.DataFrame
    changes: pd.DataFrame
    environment: list[tuple[str, str, str]]
    warnings: list[tuple[str, str, str]]

    @property
    def differs(self) -> bool:
        """True if the runs differ beyond ties."""
        return any(self.cells[kind] for kind in DIFFERENT)

    def __repr__(self) -> str:
        """Return the numbers of cells in one line."""
        counts = ", ".join(f"{self.cells[kind]} {text}" for kind, text in KINDS.items() if self.cells[kind])
        return f"{self.old} -> {self.new}: cells: {counts or 'none'}"


def diff_runs(old: str | Path, new: str | Path) -> Difference:
    """Compare two runs of a board, cell by cell and image by image.

    Cells of one key are compared bit for bit, those of other keys by defense, attack, view, threat and image.

    Args:
        old: the results folder of the old run.
        new: that of the new one.

    Raises:
        UserError: no results, damaged results, two boards of different names, or two runs without a common row.
    """
    sides = read_side(old), read_side(new)
    check_one_board(*(side.folder for side in sides))
    try:
        cells = paired_cells(*sides)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} vanished while it was read; repeat the command") from None
    if not any(row.old and row.new for row in cells.values()):
        raise UserError(f"{old} and {new} have no finished row in common; name two runs of one board")
    rows, images = compared_rows(*sides, cells)
    return Difference(
        str(old),
        str(new),
        _title(*sides),
        {kind: sum(row.count[kind] for row in cells.values()) for kind in KINDS},
        rows,
        images,
        _changes(*sides, cells),
        environments(*sides),
        warnings_of(*sides),
    )


def _title(old: RunSide, new: RunSide) -> str:
    """Return the title of the board."""
    manifest = read_manifest(new.folder) or read_manifest(old.folder)
    return str(manifest.get("title") or manifest.get("board") or new.folder.name)


def _changes(old: RunSide, new: RunSide, cells: Mapping[RowName, RowCells]) -> pd.DataFrame:
    """Return what differs between the keys of the paired cells of each row."""
    rows = []
    for name, row in cells.items():
        counts: dict[tuple[str, str, str], int] = {}
        for before, after in row.pairs:
            for change in _changed(old, before, new, after):
                counts[change] = counts.get(change, 0) + 1
        rows += [(*name, *change, n) for change, n in counts.items()]
    return public(pd.DataFrame(rows, columns=list(CHANGE_COLUMNS)))


def _changed(old: RunSide, before: str, new: RunSide, after: str) -> list[tuple[str, str, str]]:
    """Return what differs between the keys of two cells."""
    return identity_changes(old.lines[before].get("identity", {}), new.lines[after].get("identity", {}))
