"""Verdicts image by image: the matrix of a defense's images and attacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bench.analysis.records import CLEAN
from bench.analysis.results import Results
from bench.analysis.rows import ROW, SETTING, TRAINING_SEED, Group, Row, choose, grouped
from bench.analysis.scores import Scores
from bench.report.row_text import NAMES
from defenses.utils.arrays import F64, I64, Bools

BROKEN, ONLY, NONE, WRONG = "broken", "only", "none", "wrong"  # states of an image
STATES = {
    BROKEN: "broken",
    ONLY: "broken by adaptive attacks only",
    NONE: "no attack breaks it",
    WRONG: "clean image is wrong",
}
Setting = tuple[str, ...]
"""Values of `bench.analysis.rows.SETTING`, and the label of a defense."""


@dataclass(frozen=True, eq=False)
class Column:
    """An attack on the images of a matrix.

    Args:
        attack: label.
        view: label.
        gradient: gradient mode; "" without one.
        secret: False if the attacker knows the draw that is judged: no candidate for the worst case.
        status: "ok", or what is missing.
        cells: positions of its cells in `bench.analysis.results.Results.cells`.
        shares: of the held-out draws that withstand it, [images] in [0, 1]; NaN: no verdict.
        refused: share of held-out draws that refuse the image, [images]; NaN: no verdict.
        sizes: of the perturbations in the norm of the threat, [images]; infinite beyond eps, NaN: no verdict.
    """

    attack: str
    view: str
    gradient: str
    secret: bool
    status: str
    cells: tuple[int, ...]
    shares: F64
    refused: F64
    sizes: F64


@dataclass(frozen=True, eq=False)
class Evidence:
    """Images of a trained defense, with the verdict of each attack.

    Args:
        training_seed: of its weights.
        index: dataset indices, ascending, [images].
        label: right classes, [images].
        clean: share of right draws of the clean image, [images]; NaN: unknown.
        columns: the attacks, in board order.
        deciding: position in `columns` of the attack that is chosen as the worst, [images]; -1: the clean image is, or
            nothing could be chosen.
        worst: share of the held-out draws that withstand the worst case, [images]; NaN: nothing could be chosen.
        clean_cells: positions of the cells of clean images.
    """

    training_seed: int
    index: I64
    label: I64
    clean: F64
    columns: tuple[Column, ...]
    deciding: I64
    worst: F64
    clean_cells: tuple[int, ...]

    @cached_property
    def right(self) -> Bools:
        """True where the clean image is right in most draws, or unknown, [images]."""
        right: Bools = ~(self.clean <= 0.5)
        return right

    @cached_property
    def broken(self) -> Bools:
        """True where the clean image is right and fewer than half of the draws withstand an attack, [attacks, images].

        Attacks that know the judged draw break nothing here, as in the worst case.
        """
        counts = [(c.shares < 0.5) & self.right & c.secret for c in self.columns]
        return np.stack(counts) if counts else np.zeros((0, len(self.index)), bool)

    @cached_property
    def states(self) -> list[tuple[str, ...]]:
        """States of each image, keys of `STATES`; without a blind attack none is broken by adaptive ones only."""
        blind = np.array([c.gradient == "blind" for c in self.columns], bool)
        by_any: Bools = np.asarray(self.broken.any(axis=0))
        by_blind: Bools = np.asarray(self.broken[blind].any(axis=0)) if blind.any() else by_any
        found = zip(self.right.tolist(), by_any.tolist(), by_blind.tolist(), strict=True)
        return [_states(*row) for row in found]

    def alone(self, column: int) -> I64:
        """Return the dataset indices of the images that one attack alone breaks."""
        alone: I64 = self.index[self.broken[column] & (self.broken.sum(axis=0) == 1)]
        return alone


def _states(right: bool, broken: bool, by_blind: bool) -> tuple[str, ...]:
    if not right:
        return (WRONG,)
    if not broken:
        return (NONE,)
    return (BROKEN,) if by_blind else (BROKEN, ONLY)


def evidence_of(results: Results) -> dict[Setting, list[Evidence]]:
    """Return the evidence of each defense in each setting, one for each training.

    Args:
        results: from `bench.analysis.results.read_results`.
    """
    cells = _cells(results)
    found: dict[Setting, list[Evidence]] = {}
    for seeds in grouped(results):
        names = seeds[0].rows[0].names
        key = (*(str(names[name]) for name in SETTING), str(names["defense"]))
        found[key] = [_evidence(group, cells) for group in seeds]
    return found


def _cells(results: Results) -> Mapping[tuple[Any, ...], tuple[int, ...]]:
    """Return the positions of the cells of each row of tables, by (*ROW, training seed)."""
    columns = [results.cells[name].tolist() for name in (*ROW, TRAINING_SEED)]
    found: dict[tuple[Any, ...], list[int]] = {}
    for at, key in enumerate(zip(*columns, strict=True)):
        found.setdefault(key, []).append(at)
    return {key: tuple(positions) for key, positions in found.items()}


def _evidence(group: Group, cells: Mapping[tuple[Any, ...], tuple[int, ...]]) -> Evidence:
    index = np.unique(np.concatenate([np.zeros(0, np.int64), *(row.scores.index for row in group.rows)]))
    label, clean = np.full(len(index), -1, np.int64), np.full(len(index), np.nan)
    for row in group.rows:
        at = np.searchsorted(index, row.scores.index)
        label[at] = row.scores.label.astype(np.int64)
        clean[at] = np.where(np.isnan(clean[at]), row.scores.clean, clean[at])
    attacks = [row for row in group.rows if row.attack not in NAMES]
    columns = [_column(row, index, cells[_key(row, group)]) for row in attacks]
    deciding, worst = _worst(group, attacks, index)
    clean_cells = [at for row in group.rows if row.attack == CLEAN for at in cells[_key(row, group)]]
    return Evidence(group.training_seed, index, label, clean, tuple(columns), deciding, worst, tuple(clean_cells))


def _key(row: Row, group: Group) -> tuple[Any, ...]:
    return (*(row.names[name] for name in ROW), group.training_seed)


def _column(row: Row, index: I64, cells: tuple[int, ...]) -> Column:
    scores, at = row.scores, np.searchsorted(index, row.scores.index)

    def spread(values: F64) -> F64:
        spread = np.full(len(index), np.nan)
        spread[at] = values
        return spread

    judged = np.maximum(scores.draws, 1)
    return Column(
        row.attack,
        str(row.names["view"]),
        row.gradient,
        not row.seed_known,
        row.status,
        cells,
        spread(scores.withstood / judged),
        spread(scores.rejected / judged),
        spread(scores.size),
    )


def _worst(group: Group, attacks: Sequence[Row], index: I64) -> tuple[I64, F64]:
    """Return which attack is chosen on each image, and the share of draws that withstand it."""
    deciding, worst = np.full(len(index), -1, np.int64), np.full(len(index), np.nan)
    chosen: tuple[Scores, I64] | None = choose(group.needed) if group.attacks and group.needed else None
    if chosen is not None:
        scores, rows = chosen
        places = {id(row): position for position, row in enumerate(attacks)}
        of_needed = np.array([places.get(id(row), -1) for row in group.needed], np.int64)
        at = np.searchsorted(index, scores.index)
        deciding[at] = of_needed[rows]
        worst[at] = scores.withstood / scores.draws
    return deciding, worst


def ordered(evidence: Evidence, column: int) -> Iterator[int]:
    """Yield the positions of images with a verdict: broken ones first, by size, those with a wrong clean image last."""
    shares, sizes = evidence.columns[column].shares, evidence.columns[column].sizes
    at = np.flatnonzero(~np.isnan(shares))
    rank = np.where(evidence.broken[column] | (shares < 0.5) & evidence.right, 0, np.where(evidence.right, 1, 2))
    yield from at[np.lexsort((evidence.index[at], sizes[at], rank[at]))].tolist()
