"""The rows of a table, by setting and defense, with the verdicts behind each; and the worst of them for every image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.judged import PER_IMAGE, Judged, judged_of
from bench.results import CLEAN, NULL, Results

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

NOT_RUN = "not run"
SETTING = ("dataset", "split", "indices", "norm", "eps", "targets")  # rows are compared within one setting
ROW = (*SETTING, "defense", "attack", "view", "budget")


@dataclass(frozen=True, eq=False)
class Row:
    """One attack on one defense under one view, in one setting.

    Args:
        names: what `ROW` names.
        cells: as `load_cells` gives them.
        judged: the verdicts.
        planned: number of images.
        status: "ok", or what is missing and why.
    """

    names: dict[str, Any]
    cells: pd.DataFrame
    judged: Judged
    planned: int
    status: str

    @property
    def attack(self) -> str:
        """Label of the attack."""
        return str(self.names["attack"])

    @property
    def stochastic(self) -> bool:
        """Whether the defense is."""
        return bool(self.cells["stochastic"].any())

    def __str__(self) -> str:
        return f"{self.attack} ({self.names['view']})" if self.names["view"] else self.attack


@dataclass(frozen=True, eq=False)
class Group:
    """One defense in one setting.

    Args:
        rows: in board order.
        attacks: those that attack something; without any there is no worst case.
        needed: clean images and attacks that have to judge an image before its worst case is known.
    """

    rows: Sequence[Row]
    attacks: Sequence[Row]
    needed: Sequence[Row]


def grouped(results: Results) -> Iterator[Group]:
    """The groups of a board, in board order.

    Attacks that no defense of a setting can be attacked with are not needed: all are compared without them.

    Raises:
        UserError: an image has several verdicts in one row.
    """
    records = results.records.merge(results.votes, on=["cell", "index"], how="left")
    by_cell = dict(iter(records.groupby("cell", sort=False)))
    for _, setting in results.cells.groupby(list(SETTING), sort=False):
        planned = int(setting.drop_duplicates("block")["images"].sum())
        groups = [_rows(cells, by_cell, planned) for _, cells in setting.groupby("defense", sort=False)]
        everywhere = _unsupported_everywhere(row for rows in groups for row in rows)
        for rows in groups:
            attacks = [row for row in rows if row.attack not in (CLEAN, NULL)]
            candidates = [row for row in rows if row.attack == CLEAN] + attacks
            needed = [row for row in candidates if row.attack not in everywhere or row.status == NOT_RUN]
            yield Group(rows, attacks, needed)


def _rows(cells: pd.DataFrame, by_cell: dict[Any, pd.DataFrame], planned: int) -> list[Row]:
    rows = []
    for names, part in cells.groupby(list(ROW), sort=False):
        judged, reason = judged_of(part, by_cell)
        status = _status(part, len(judged), planned, reason)
        rows.append(Row(dict(zip(ROW, names, strict=True)), part, judged, planned, status))
    return rows


def _status(cells: pd.DataFrame, n: int, planned: int, reason: str) -> str:
    """Whether a row is whole, and if not, what is missing and why."""
    if n == planned:
        return "ok"
    found = {status: part["error"] for status, part in cells.groupby("status", sort=False)}
    for status in ("error", "unsupported"):
        if status in found:
            reason = f"{status}: {found[status].iloc[0]}"
            break
    else:
        reason = reason or (NOT_RUN if "missing" in found else "")
    if not n and set(found) - {"ok"}:
        return reason
    return f"partial: {n} of {planned} images" + (f"; {reason}" if reason else "")


def _unsupported_everywhere(rows: Iterable[Row]) -> set[str]:
    supported: dict[str, bool] = {}
    for row in rows:
        possible = not row.status.startswith(("unsupported", NOT_RUN))
        supported[row.attack] = supported.get(row.attack, False) or possible
    return {attack for attack, possible in supported.items() if not possible}


def choose(rows: Sequence[Row]) -> tuple[Judged, npt.NDArray[np.int64]] | None:
    """Per image that all rows have judged, the verdict of the worst row.

    Args:
        rows: of one group, at least one.

    Returns:
        The verdicts, by ascending index, and which row each comes from; None when selection draws are lacking. Of
        rows that are equal on selection draws the smaller perturbation that succeeds is taken, then the first row.
    """
    import numpy as np

    from bench.selection import worst_case

    index = rows[0].judged.index
    for row in rows[1:]:
        index = np.intersect1d(index, row.judged.index)
    index = np.sort(index)
    at = []
    for row in rows:
        order = np.argsort(row.judged.index)
        at.append(order[np.searchsorted(row.judged.index, index, sorter=order)])
    stacked = {
        name: np.stack([getattr(row.judged, name)[i] for row, i in zip(rows, at, strict=True)]) for name in PER_IMAGE
    }
    # One verdict of a deterministic defense serves both purposes.
    sel, n_sel = ("withstood_sel", "draws_sel") if rows[0].stochastic else ("withstood", "draws")
    if (stacked[n_sel] <= 0).any():
        return None
    worst = worst_case(stacked[sel], stacked["withstood"], stacked[n_sel], stacked["draws"], stacked["size"])
    columns = np.arange(len(index))
    return Judged(index, **{name: values[worst.attack, columns] for name, values in stacked.items()}), worst.attack
