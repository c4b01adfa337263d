"""The verdicts of one row of a table, and every aggregation of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.results import Results
    from bench.stats.proportions import Rate
    from defenses.utils.arrays import F64


@dataclass(frozen=True, eq=False)
class Scores:
    """The verdicts of one row, an entry per image: the images that have one.

    Args:
        index: dataset indices.
        label: the right class.
        correct, draws: right and all held-out draws.
        withstood: held-out draws in which the attack fails: right ones, or when targeted those without its target.
        withstood_sel, draws_sel: the same of the selection draws, and all of them.
        margin_sel: mean over the selection draws of what the attack aims to lower; NaN: not known.
        rejected: refused held-out draws.
        clean: share of right draws of the clean image; NaN: not known.
        success: share of draws in which the attack has what it wants.
        newly_wrong: share of draws in which so and the clean image is right; NaN: not known.
        size: of the perturbation, in the norm of the threat; infinite where it is more than eps.
        majority, mean_logit: 1 where the vote is right, else 0; NaN: not known.
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
        """The verdicts of some of the images, in the order of their dataset indices."""
        import numpy as np

        if np.array_equal(index, self.index):
            return self
        order = np.argsort(self.index)
        at = order[np.searchsorted(self.index, index, sorter=order)]
        return Scores(index, **{name: getattr(self, name)[at] for name in PER_IMAGE})


PER_IMAGE = tuple(name for name in Scores.__dataclass_fields__ if name != "index")


def no_verdict() -> Scores:
    """No image at all."""
    import numpy as np

    return Scores(np.zeros(0, np.int64), *[np.zeros(0)] * len(PER_IMAGE))


@dataclass(frozen=True, eq=False)
class Columns:
    """The records of a board as arrays, in table order.

    Args:
        cell: columns of the cells, see `load_cells`.
        bounds: by position of a cell, where its records begin; one more entry for the end.
        values: columns by name.
        error: why an image has no verdict.
    """

    cell: dict[str, Any]
    bounds: Any
    values: dict[str, Any]
    error: Any

    def rows(self, cells: Any) -> Any:
        """Which records are those of some cells, given by position: a slice where they lie together."""
        import numpy as np

        if len(cells) and (np.diff(cells) == 1).all():
            return slice(self.bounds[cells[0]], self.bounds[cells[-1] + 1])
        parts = [np.arange(self.bounds[c], self.bounds[c + 1]) for c in cells]
        return np.concatenate(parts) if parts else slice(0, 0)


def columns_of(results: Results) -> Columns:
    """The records of a board as arrays."""
    import numpy as np

    records = results.records
    values = {str(name): records[name].to_numpy() for name in records if name not in ("cell", "at", "status", "error")}
    within = values["beyond"] | (values["in_ball"] & values["in_box"] & values["finite"])
    values["valid"] = ~np.isnan(values["accuracy"]) & within.astype(bool)
    bounds = np.searchsorted(records["at"].to_numpy(), np.arange(len(results.cells) + 1))
    cell = {str(name): results.cells[name].to_numpy() for name in results.cells}
    for name in ("images", "forwards", "backwards", "queries", "seconds_attack"):
        cell[name] = cell[name].astype(np.float64)
    return Columns(cell, bounds, values, records["error"])


def scores_of(columns: Columns, cells: Any) -> tuple[Scores, str]:
    """The verdicts of some cells of one row of a table.

    Args:
        columns: the records.
        cells: positions of the cells.

    Returns:
        The images with a verdict, and why others have none ("" when all have). What left the box or the ball counts
        as no verdict, neither robust nor broken.

    Raises:
        UserError: an image has several verdicts.
    """
    import numpy as np

    rows = columns.rows(cells)
    valid = columns.values["valid"][rows]
    reason = "" if valid.all() else _reason(columns.error.iloc[rows][~valid])
    kept = {name: values[rows][valid] for name, values in columns.values.items()}
    cell = {name: values[cells[0]] for name, values in columns.cell.items()}
    _refuse_twice(kept["index"], cell)
    targeted = cell["targets"] != "none"
    kept["withstood"] = kept["draws"] - kept["hits"] if targeted else kept["correct"]
    kept["withstood_sel"] = kept["draws_sel"] - kept["hits_sel"] if targeted else kept["correct_sel"]
    kept["newly_wrong"] = kept["newly_wrong"] / kept["draws"]
    size = kept[str(cell["norm"]).lower()].astype(np.float64)
    kept["size"] = np.where(kept["beyond"].astype(bool), np.inf, size)
    return Scores(kept["index"], **{n: kept[n].astype(np.float64) for n in PER_IMAGE}), reason


def _reason(errors: pd.Series[Any]) -> str:
    return next((str(r) for r in errors.astype(object).fillna("") if r), "no valid verdict")


def _refuse_twice(index: Any, cell: Any) -> None:
    import numpy as np

    order = np.sort(index)
    twice = np.flatnonzero(np.diff(order) == 0)
    if len(twice):
        raise UserError(
            f"{cell['defense']}, {cell['attack']} ({cell['view']}): image {order[twice[0]]} has several verdicts; "
            "name an index once in a list, and attacks apart by label"
        )


def common(several: Sequence[Scores]) -> Any:
    """The dataset indices that all have a verdict of, ascending."""
    import numpy as np

    index = np.sort(several[0].index)
    for judged in several[1:]:
        if not np.array_equal(index, judged.index):
            index = np.intersect1d(index, judged.index)
    return index


def aggregates(judged: Scores, m: Sequence[int], *, stochastic: bool, attacked: bool) -> dict[str, Any]:
    """All aggregations of verdicts, by name; NaN where there is nothing to aggregate. See `summary`.

    Args:
        judged: the verdicts.
        m: the M of Rob(M).
        stochastic: whether the defense is.
        attacked: False for clean images, of which no attack can succeed, and whose refusals count as errors.
    """
    import numpy as np

    from bench.stats.median import median_interval, median_perturbation
    from bench.stats.proportions import Rate, attack_success_rate, rob_at_m

    n = len(judged)
    known = ~np.isnan(judged.clean)
    meant = known & attacked
    rate = attack_success_rate(judged.clean[meant], judged.newly_wrong[meant]) if meant.any() else Rate(np.nan, np.nan)
    right = meant & (judged.clean > 0.5)
    needed = judged.size[right], judged.success[right] > 0.5
    enough = [i for i in m if stochastic and n and judged.draws.min() >= i]
    shares = {
        "clean_mean": judged.clean[known],
        "robust_mean": judged.withstood / np.maximum(judged.draws, 1),
        "rejected_mean": judged.rejected / np.maximum(judged.draws, 1),
        "right_or_refused_mean": ((judged.correct + judged.rejected) / np.maximum(judged.draws, 1))[: n * attacked],
        **{f"rob_m{i}": rob_at_m(judged.withstood, judged.draws, i) for i in enough},
        "majority": judged.majority,
        "mean_logit": judged.mean_logit,
    }
    means = {f"rob_m{i}": np.nan for i in m} | {name: _mean(values) for name, values in shares.items()}
    return {
        "n_images": n,
        "draws": int(judged.draws.max()) if n else 0,
        **means,
        **intervals(means, {name: len(values) for name, values in shares.items()}),
        **of_rate(rate),
        "median_perturbation": median_perturbation(*needed),
        **dict(zip(bounds_of("median_perturbation"), median_interval(*needed), strict=True)),
        "median_perturbation_images": int(right.sum()),
    }


def of_rate(rate: Rate) -> dict[str, float]:
    """The rate of success with its parts and Wilson's 95% interval, n = expected number of originally right images."""
    means, n = {"asr": rate.value}, {"asr": rate.denominator}
    parts = {"asr_newly_wrong": rate.numerator, "asr_originally_correct": rate.denominator}
    return means | intervals(means, n) | parts


def bounds_of(share: str) -> tuple[str, str]:
    """What the ends of a share's interval are called: "robust_mean" has "robust_low" and "robust_high"."""
    stem = share.removesuffix("_mean")
    return f"{stem}_low", f"{stem}_high"


def intervals(means: Mapping[str, float], n: Mapping[str, float]) -> dict[str, float]:
    """Wilson's 95% interval of every mean over images of values in [0, 1]: also of Rob(M), votes and mean logits.

    Args:
        means: by name.
        n: images behind each; one without is taken as unknown.
    """
    from bench.stats.proportions import wilson

    found: dict[str, float] = {}
    for name, mean in means.items():
        low, high = wilson(mean * n.get(name, 0), n.get(name, 0)) if mean == mean else (float("nan"),) * 2
        found |= dict(zip(bounds_of(name), (float(low), float(high)), strict=True))
    return found


def _mean(values: F64) -> float:
    return float(values.mean()) if len(values) else float("nan")
