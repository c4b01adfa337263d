"""The rows of a table, by setting and defense, with the verdicts behind each; and the worst of them for every image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.analysis.records import CLEAN, NULL, owners
from bench.analysis.scores import PER_IMAGE, Columns, Scores, columns_of, common, scores_of
from bench.stats.worst_case import worst_case
from defenses.utils.arrays import I64

if TYPE_CHECKING:
    from bench.analysis.results import Results

NOT_RUN = "not run"
SETTING = ("dataset", "split", "indices", "norm", "eps", "targets")  # rows are compared within one setting
TRAINING_SEED = "training_seed"
ROW = (*SETTING, "defense", "attack", "view", "budget")
COSTS = ("evaluations_per_image", "queries_per_image", "seconds_per_image")


@dataclass(frozen=True, eq=False)
class Row:
    """One attack on one trained defense under one view, in one setting.

    Args:
        names: what `ROW` names.
        stochastic: whether the defense is.
        costs: of the attack per image, over the cells that have finished; what `COSTS` names.
        judged: the verdicts.
        planned: number of images.
        status: "ok", or what is missing and why.
        known: whether the attacker knows the draw on which the images are judged.
    """

    names: dict[str, Any]
    stochastic: bool
    costs: dict[str, float]
    judged: Scores
    planned: int
    status: str
    known: bool

    @property
    def attack(self) -> str:
        """Label of the attack."""
        return str(self.names["attack"])

    def __str__(self) -> str:
        return f"{self.attack} ({self.names['view']})" if self.names["view"] else self.attack


@dataclass(frozen=True, eq=False)
class Group:
    """One trained defense in one setting.

    Args:
        training_seed: of its weights.
        rows: in board order.
        attacks: those that attack something, and do not know the draw; without any there is no worst case.
        needed: clean images and attacks that have to judge an image before its worst case is known.
    """

    training_seed: int
    rows: Sequence[Row]
    attacks: Sequence[Row]
    needed: Sequence[Row]


def grouped(results: Results) -> Iterator[list[Group]]:
    """Per setting and defense, in board order, a group per seed of its training: each is a defense of its own.

    Attacks that no defense of a setting can be attacked with are not needed: all are compared without them.

    Raises:
        UserError: an image has several verdicts in one row.
    """
    columns, cells = columns_of(results), results.cells
    settings, defenses, trained, rows = (
        owners(cells, by)
        for by in (SETTING, (*SETTING, "defense"), (*SETTING, "defense", TRAINING_SEED), (*ROW, TRAINING_SEED))
    )
    for setting in _split(np.arange(len(cells)), settings):
        planned = int(cells.iloc[setting].drop_duplicates("block")["images"].sum())
        groups = [
            {
                int(columns.cell[TRAINING_SEED][seed[0]]): [_row(columns, at, planned) for at in _split(seed, rows)]
                for seed in _split(defense, trained)
            }
            for defense in _split(setting, defenses)
        ]
        everywhere = _unsupported_everywhere(row for seeds in groups for of in seeds.values() for row in of)
        for seeds in groups:
            yield [_group(seed, of_seed, everywhere) for seed, of_seed in seeds.items()]


def _split(cells: I64, codes: I64) -> list[I64]:
    """Cells, given by position, apart by their codes, in order of appearance."""
    own = codes[cells]
    order = np.argsort(own, kind="stable")
    return np.split(cells[order], np.flatnonzero(np.diff(own[order])) + 1) if len(cells) else []


def _group(seed: int, rows: list[Row], everywhere: set[str]) -> Group:
    attacks = [row for row in rows if row.attack not in (CLEAN, NULL) and not row.known]
    candidates = [row for row in rows if row.attack == CLEAN] + attacks
    return Group(seed, rows, attacks, [r for r in candidates if r.attack not in everywhere or r.status == NOT_RUN])


def _row(columns: Columns, cells: I64, planned: int) -> Row:
    judged, reason = scores_of(columns, cells)
    names = {name: columns.cell[name][cells[0]] for name in ROW}
    stochastic = bool(columns.cell["stochastic"][cells].any())
    return Row(
        names,
        stochastic,
        _costs(columns, cells),
        judged,
        planned,
        _status(columns, cells, len(judged), planned, reason),
        bool(columns.cell["seed_known"][cells[0]]),
    )


def _costs(columns: Columns, cells: I64) -> dict[str, float]:
    """Cost of the attack per image, over the cells that have finished; evaluations are NaN where none was counted."""
    done = cells[columns.cell["status"][cells] == "ok"]
    images = float(columns.cell["images"][done].sum())
    names = ("forwards", "backwards", "queries", "seconds_attack")
    total = {n: float(np.nansum(columns.cell[n][done])) / images if images else float("nan") for n in names}
    evaluations = total["forwards"] + 2 * total["backwards"]
    if not evaluations and total["queries"]:
        evaluations = float("nan")  # it asked a defense whose networks nobody knows
    return dict(zip(COSTS, (evaluations, total["queries"], total["seconds_attack"]), strict=True))


def _status(columns: Columns, cells: I64, n: int, planned: int, reason: str) -> str:
    """Whether a row is whole, and if not, what is missing and why."""
    if n == planned:
        return "ok"
    found: dict[str, str] = {}
    for status, error in zip(columns.cell["status"][cells], columns.cell["error"][cells], strict=True):
        found.setdefault(status, error)
    for status in ("error", "unsupported"):
        if status in found:
            reason = f"{status}: {found[status]}"
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


def choose(rows: Sequence[Row]) -> tuple[Scores, I64] | None:
    """Per image that all rows have judged, the verdict of the worst row.

    Args:
        rows: of one group, at least one.

    Returns:
        The verdicts, by ascending index, and which row each comes from; None when selection draws are lacking. For
        rows that are equal on selection draws see `bench.stats.worst_case.select_worst`.
    """
    index = common([row.judged for row in rows])
    judged = [row.judged.of(index) for row in rows]
    stacked = {name: np.stack([getattr(j, name) for j in judged]) for name in PER_IMAGE}
    # One verdict of a deterministic defense serves both purposes.
    sel, n_sel = ("withstood_sel", "draws_sel") if rows[0].stochastic else ("withstood", "draws")
    if (stacked[n_sel] <= 0).any():
        return None
    idle = np.array([[row.attack == CLEAN] for row in rows])
    worst = worst_case(
        *(stacked[name] for name in (sel, "withstood", n_sel, "draws", "size")), margin=stacked["margin_sel"], idle=idle
    )
    columns = np.arange(len(index))
    return Scores(index, **{name: values[worst.attack, columns] for name, values in stacked.items()}), worst.attack
