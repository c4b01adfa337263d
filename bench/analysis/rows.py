"""Group the results into table rows by setting and defense, and choose the worst row for every image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.analysis.records import CLEAN, NULL, group_numbers
from bench.analysis.scores import PER_IMAGE, Columns, Scores, columns_of, common, scores_of
from bench.spec.cell import NO_GRADIENT
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
    """A row of a table: an attack on a trained defense under a view, in one setting.

    Args:
        names: values of the columns `ROW`.
        stochastic: True for a stochastic defense.
        costs: costs of the attack per image over the finished cells, by the names of `COSTS`.
        scores: the verdicts.
        planned: number of planned images.
        status: "ok", or the missing cells and the reason.
        gradient: gradient mode of the attack, as "exact"; "" for null attacks and precomputed images.
        seed_known: True if the attacker knows the draw on which the images are judged.
        compute: arithmetic of the search, as "bf16"; "" for plain float32.
    """

    names: dict[str, Any]
    stochastic: bool
    costs: dict[str, float]
    scores: Scores
    planned: int
    status: str
    gradient: str
    seed_known: bool
    compute: str

    @property
    def attack(self) -> str:
        """Label of the attack."""
        return str(self.names["attack"])

    def __str__(self) -> str:
        return f"{self.attack} ({self.names['view']})" if self.names["view"] else self.attack


@dataclass(frozen=True, eq=False)
class Group:
    """A trained defense in one setting, with its rows.

    Args:
        training_seed: training seed of its weights.
        rows: all rows, in board order.
        attacks: rows of attacks under secret draws; without any there is no worst case.
        needed: rows of clean images and attacks whose verdicts the worst case of an image needs.
    """

    training_seed: int
    rows: Sequence[Row]
    attacks: Sequence[Row]
    needed: Sequence[Row]


def grouped(results: Results) -> Iterator[list[Group]]:
    """Yield the groups of each setting and defense, in board order: one group per training seed.

    Attacks that are unsupported on all defenses of a setting are not needed for the worst case.

    Args:
        results: from `read_results`.

    Raises:
        UserError: an image has several verdicts in one row.
    """
    columns, cells = columns_of(results), results.cells
    settings, defenses, trained, rows = (
        group_numbers(cells, by)
        for by in (SETTING, (*SETTING, "defense"), (*SETTING, "defense", TRAINING_SEED), (*ROW, TRAINING_SEED))
    )
    for setting in _split(np.arange(len(cells)), settings):
        planned = int(cells.iloc[setting].drop_duplicates("block")["images"].sum())
        groups = [
            {int(columns.cell[TRAINING_SEED][seed[0]]): _split(seed, rows) for seed in _split(defense, trained)}
            for defense in _split(setting, defenses)
        ]
        every = (at for seeds in groups for of_seed in seeds.values() for at in of_seed)
        unsupported = _unsupported_everywhere(columns, every, planned)
        for seeds in groups:  # verdicts of one defense at a time: those of all are large
            yield [_group(seed, [_row(columns, at, planned) for at in of], unsupported) for seed, of in seeds.items()]


def _split(cells: I64, codes: I64) -> list[I64]:
    """Split positions of cells by their codes, in order of appearance."""
    cell_codes = codes[cells]
    order = np.argsort(cell_codes, kind="stable")
    return np.split(cells[order], np.flatnonzero(np.diff(cell_codes[order])) + 1) if len(cells) else []


def _group(seed: int, rows: list[Row], unsupported: set[str]) -> Group:
    attacks = [row for row in rows if row.attack not in (CLEAN, NULL) and not row.seed_known]
    candidates = [row for row in rows if row.attack == CLEAN] + attacks
    return Group(seed, rows, attacks, [r for r in candidates if r.attack not in unsupported or r.status == NOT_RUN])


def _row(columns: Columns, cells: I64, planned: int) -> Row:
    scores, reason = scores_of(columns, cells)
    names = {name: columns.cell[name][cells[0]] for name in ROW}
    stochastic = bool(columns.cell["stochastic"][cells].any())
    return Row(
        names,
        stochastic,
        _costs(columns, cells),
        scores,
        planned,
        _status(columns, cells, len(scores), planned, reason),
        "" if names["view"] in NO_GRADIENT else str(columns.cell["gradient"][cells[0]]),
        bool(columns.cell["seed_known"][cells[0]]),
        str(columns.cell["compute"][cells[0]]),
    )


def _costs(columns: Columns, cells: I64) -> dict[str, float]:
    """Return the costs of the attack per image over the finished cells; evaluations are NaN if none was counted."""
    done = cells[columns.cell["status"][cells] == "ok"]
    images = float(columns.cell["images"][done].sum())
    names = ("forwards", "backwards", "queries", "seconds_attack")
    total = {n: float(np.nansum(columns.cell[n][done])) / images if images else float("nan") for n in names}
    evaluations = total["forwards"] + 2 * total["backwards"]
    if not evaluations and total["queries"]:
        evaluations = float("nan")  # queried a defense whose networks are not counted
    return dict(zip(COSTS, (evaluations, total["queries"], total["seconds_attack"]), strict=True))


def _status(columns: Columns, cells: I64, n: int, planned: int, reason: str) -> str:
    """Return "ok" for a complete row, else its number of images and the reason."""
    if n == planned:
        return "ok"
    errors: dict[str, str] = {}
    for status, error in zip(columns.cell["status"][cells], columns.cell["error"][cells], strict=True):
        errors.setdefault(status, error)
    for status in ("error", "unsupported"):
        if status in errors:
            reason = f"{status}: {errors[status]}"
            break
    else:
        reason = reason or (NOT_RUN if "missing" in errors else "")
    if not n and set(errors) - {"ok"}:
        return reason
    return f"partial: {n} of {planned} images" + (f"; {reason}" if reason else "")


def _unsupported_everywhere(columns: Columns, rows: Iterable[I64], planned: int) -> set[str]:
    """Return the attacks all of whose rows, given by their cells, are unsupported or not run."""
    supported: dict[str, bool] = {}
    for cells in rows:
        attack = str(columns.cell["attack"][cells[0]])
        done = bool((columns.cell["status"][cells] == "ok").all())
        possible = done or not _row(columns, cells, planned).status.startswith(("unsupported", NOT_RUN))
        supported[attack] = supported.get(attack, False) or possible
    return {attack for attack, possible in supported.items() if not possible}


def choose(rows: Sequence[Row]) -> tuple[Scores, I64] | None:
    """Return the verdict of the worst row on each image that all rows have verdicts of.

    Args:
        rows: rows of one group, at least one.

    Returns:
        The verdicts, by ascending index, and the position of the row of each; None if selection draws are missing.
        `bench.stats.worst_case.select_worst` breaks ties.
    """
    index = common([row.scores for row in rows])
    scores = [row.scores.of(index) for row in rows]
    stacked = {name: np.stack([getattr(s, name) for s in scores]) for name in PER_IMAGE}
    # A deterministic defense has one verdict for selection and count.
    sel, n_sel = ("withstood_sel", "draws_sel") if rows[0].stochastic else ("withstood", "draws")
    if (stacked[n_sel] <= 0).any():
        return None
    worst = worst_case(
        *(stacked[name] for name in (sel, "withstood", n_sel, "draws", "size")),
        margin=stacked["margin_sel"],
        no_attack=np.array([[row.attack == CLEAN] for row in rows]),
    )
    columns = np.arange(len(index))
    return Scores(index, **{name: values[worst.attack, columns] for name, values in stacked.items()}), worst.attack
