"""Collect the verdicts of one row of a table, and aggregate them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.stats.median import median_interval, median_perturbation
from bench.stats.proportions import Rate, attack_success_rate, rob_at_m, wilson
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.results import Results
    from defenses.utils.arrays import F64


@dataclass(frozen=True, eq=False)
class Scores:
    """Verdicts of one row, [images] for the images that have one.

    Args:
        index: dataset indices.
        label: right class.
        correct: number of right held-out draws.
        draws: number of held-out draws.
        withstood: number of held-out draws in which the attack fails: right ones, or if targeted those that do not
            give its target.
        withstood_sel: number of selection draws in which it fails.
        draws_sel: number of selection draws.
        margin_sel: mean over the selection draws of what the attack lowers; NaN: unknown.
        rejected: number of refused held-out draws.
        clean: share of right draws of the clean image; NaN: unknown.
        success: share of held-out draws in which the attack succeeds.
        newly_wrong: share of held-out draws in which it succeeds and the clean image is right; NaN: unknown.
        size: size of the perturbation, in the norm of the threat; infinite above eps.
        majority: 1 if the majority vote is right, else 0; NaN: unknown.
        mean_logit: 1 if the mean logit is right, else 0; NaN: unknown.
    """

    index: Any
    label: F64
    correct: F64
    draws: F64
    withstood: F64
    withstood_sel: F64
    draws_sel: F64
    margin_sel: F64
    rejected: F64
    clean: F64
    success: F64
    newly_wrong: F64
    size: F64
    majority: F64
    mean_logit: F64

    def __len__(self) -> int:
        return len(self.index)

    def of(self, index: Any) -> Scores:
        """Return the verdicts of some of the images, in the order of `index`."""
        if np.array_equal(index, self.index):
            return self
        order = np.argsort(self.index)
        at = order[np.searchsorted(self.index, index, sorter=order)]
        return Scores(index, **{name: getattr(self, name)[at] for name in PER_IMAGE})


PER_IMAGE = tuple(name for name in Scores.__dataclass_fields__ if name != "index")


def no_verdict() -> Scores:
    """Return the verdicts of no image."""
    return Scores(np.zeros(0, np.int64), *[np.zeros(0)] * len(PER_IMAGE))


@dataclass(frozen=True, eq=False)
class Columns:
    """Records of a board as arrays, in table order.

    Args:
        results: the cells and records.
        cell: columns of the cells, see `load_cells`.
        values: columns of the records by name.
    """

    results: Results
    cell: dict[str, Any]
    values: dict[str, Any]


def columns_of(results: Results) -> Columns:
    """Return the records of a board as arrays."""
    records = results.records
    values = {str(name): records[name].to_numpy() for name in records if name not in ("cell", "at", "status", "error")}
    within = values["beyond"] | (values["in_ball"] & values["in_box"] & values["finite"])
    values["valid"] = ~np.isnan(values["accuracy"]) & within.astype(bool)
    cell = {str(name): results.cells[name].to_numpy() for name in results.cells}
    for name in ("images", "forwards", "backwards", "queries", "seconds_attack"):
        cell[name] = cell[name].astype(np.float64)
    return Columns(results, cell, values)


def scores_of(columns: Columns, cells: Any) -> tuple[Scores, str]:
    """Return the verdicts of some cells of one row of a table.

    Args:
        columns: the records.
        cells: positions of the cells.

    Returns:
        The verdicts, and the reason why other images have none ("" if all have). An image outside the box or the ball
        has no verdict: it is neither robust nor broken.

    Raises:
        UserError: an image has several verdicts.
    """
    rows = columns.results.rows(cells)
    valid = columns.values["valid"][rows]
    reason = "" if valid.all() else _reason(columns.results.records["error"].iloc[rows][~valid])
    chosen = slice(None) if valid.all() else valid
    values = {name: column[rows][chosen] for name, column in columns.values.items()}
    cell = {name: column[cells[0]] for name, column in columns.cell.items()}
    _refuse_repeated(values["index"], cell)
    targeted = cell["targets"] != "none"
    values["withstood"] = values["draws"] - values["hits"] if targeted else values["correct"]
    values["withstood_sel"] = values["draws_sel"] - values["hits_sel"] if targeted else values["correct_sel"]
    values["newly_wrong"] = values["newly_wrong"] / values["draws"]
    size = values[str(cell["norm"]).lower()].astype(np.float64)
    values["size"] = np.where(values["beyond"].astype(bool), np.inf, size)
    return Scores(values["index"], **{n: values[n].astype(np.float64) for n in PER_IMAGE}), reason


def _reason(errors: pd.Series) -> str:
    return next((str(r) for r in errors.astype(object).fillna("") if r), "no valid verdict")


def _refuse_repeated(index: Any, cell: Any) -> None:
    ascending = np.sort(index)
    repeated = np.flatnonzero(np.diff(ascending) == 0)
    if len(repeated):
        image = ascending[repeated[0]]
        raise UserError(
            f"{cell['defense']}, {cell['attack']} ({cell['view']}): image {image} has several verdicts; "
            "name an index once in a list, and attacks apart by label"
        )


def common(several: Sequence[Scores]) -> Any:
    """Return the ascending dataset indices of the images with a verdict in all rows."""
    index = np.sort(several[0].index)
    for scores in several[1:]:
        if not np.array_equal(index, scores.index):
            index = np.intersect1d(index, scores.index)
    return index


def aggregates(scores: Scores, m: Sequence[int], *, stochastic: bool, attacked: bool) -> dict[str, Any]:
    """Return all aggregations of verdicts by name; NaN where there is nothing to aggregate.

    Args:
        scores: the verdicts.
        m: the M of Rob(M).
        stochastic: True for a stochastic defense.
        attacked: False for clean images, which have no attack success and whose refusals count as errors.

    Returns:
        The columns of `summary` that depend on verdicts.
    """
    n = len(scores)
    clean_known = ~np.isnan(scores.clean)
    counted = clean_known & attacked
    pair = scores.clean[counted], scores.newly_wrong[counted]
    rate = attack_success_rate(*pair) if counted.any() else Rate(np.nan, np.nan)
    right = counted & (scores.clean > 0.5)
    perturbations = scores.size[right], scores.success[right] > 0.5
    enough = [i for i in m if stochastic and n and scores.draws.min() >= i]
    shares = {
        "clean_mean": scores.clean[clean_known],
        "robust_mean": scores.withstood / np.maximum(scores.draws, 1),
        "rejected_mean": scores.rejected / np.maximum(scores.draws, 1),
        "right_or_refused_mean": ((scores.correct + scores.rejected) / np.maximum(scores.draws, 1))[: n * attacked],
        **{f"rob_m{i}": rob_at_m(scores.withstood, scores.draws, i) for i in enough},
        "majority": scores.majority,
        "mean_logit": scores.mean_logit,
    }
    means = {f"rob_m{i}": np.nan for i in m} | {name: _mean(values) for name, values in shares.items()}
    return {
        "n_images": n,
        "draws": int(scores.draws.max()) if n else 0,
        **means,
        **intervals(means, {name: len(values) for name, values in shares.items()}),
        **of_rate(rate),
        "median_perturbation": median_perturbation(*perturbations),
        **dict(zip(bounds_of("median_perturbation"), median_interval(*perturbations), strict=True)),
        "median_perturbation_images": int(right.sum()),
    }


def of_rate(rate: Rate) -> dict[str, float]:
    """Return an attack success rate with its parts and Wilson interval by column, n = originally right images."""
    means, n = {"asr": rate.value}, {"asr": rate.denominator}
    parts = {"asr_newly_wrong": rate.numerator, "asr_originally_correct": rate.denominator}
    return means | intervals(means, n) | parts


def bounds_of(share: str) -> tuple[str, str]:
    """Return the column names of a share's interval: "robust_low" and "robust_high" for "robust_mean"."""
    stem = share.removesuffix("_mean")
    return f"{stem}_low", f"{stem}_high"


def intervals(means: Mapping[str, float], n: Mapping[str, float]) -> dict[str, float]:
    """Return the Wilson 95% intervals of means over images, of values in [0, 1].

    Args:
        means: means by column name.
        n: number of images of each mean; without one the interval is NaN.

    Returns:
        The ends by column name, see `bounds_of`.
    """
    values, counts = np.array([*means.values()], float), np.array([n.get(name, 0) for name in means], float)
    known = ~np.isnan(values)
    ends = np.full((2, len(values)), np.nan)
    ends[:, known] = wilson(values[known] * counts[known], counts[known])
    both = zip(means, ends.T.tolist(), strict=True)
    return {column: end for name, pair in both for column, end in zip(bounds_of(name), pair, strict=True)}


def _mean(values: F64) -> float:
    return float(values.mean()) if len(values) else float("nan")
