"""The verdicts of one row of a table, and every aggregation of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from defenses.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Judged:
    """The verdicts of one row, an entry per image: the images that have one.

    Args:
        index: dataset indices.
        label: the right class.
        correct, draws: right and all held-out draws.
        withstood: held-out draws in which the attack fails: right ones, or when targeted those without its target.
        withstood_sel, draws_sel: the same of the selection draws, and all of them.
        rejected: refused held-out draws.
        clean: share of right draws of the clean image; NaN: not known.
        success: share of draws in which the attack has what it wants.
        newly_wrong: share of draws in which so and the clean image is right; NaN: not known.
        size: of the perturbation, in the norm of the threat; infinite where it is more than eps.
        majority, mean_logit: 1 where the vote is right, else 0; NaN: not known.
    """

    index: Any
    label: Floats
    correct: Floats
    draws: Floats
    withstood: Floats
    withstood_sel: Floats
    draws_sel: Floats
    rejected: Floats
    clean: Floats
    success: Floats
    newly_wrong: Floats
    size: Floats
    majority: Floats
    mean_logit: Floats

    def __len__(self) -> int:
        return len(self.index)


PER_IMAGE = tuple(name for name in Judged.__dataclass_fields__ if name != "index")


def no_verdict() -> Judged:
    """No image at all."""
    import numpy as np

    return Judged(np.zeros(0, np.int64), *[np.zeros(0)] * len(PER_IMAGE))


def judged_of(cells: pd.DataFrame, by_cell: dict[Any, pd.DataFrame]) -> tuple[Judged, str]:
    """The verdicts of some cells.

    Args:
        cells: as `load_cells` gives them, of one row of a table.
        by_cell: their records with votes, by cell.

    Returns:
        The images with a verdict, and why others have none ("" when all have). What left the box or the ball counts
        as no verdict, neither robust nor broken.

    Raises:
        UserError: an image has several verdicts.
    """
    import numpy as np
    import pandas as pd

    parts = [by_cell[key] for key in cells["key"] if key in by_cell]
    if not parts:
        return no_verdict(), ""
    frame = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    within = frame["beyond"] | (frame["in_ball"] & frame["in_box"] & frame["finite"])
    valid = frame["accuracy"].notna() & within
    reasons = frame.loc[~valid, "error"].fillna("")
    reason = next((str(r) for r in reasons if r), "no valid verdict" if len(reasons) else "")
    kept = frame[valid]
    row = cells.iloc[0]
    if kept["index"].duplicated().any():
        image = kept.loc[kept["index"].duplicated(), "index"].iloc[0]
        raise UserError(
            f"{row['defense']}, {row['attack']} ({row['view']}): image {image} has several verdicts; "
            "name an index once in a list, and attacks apart by label"
        )
    targeted = row["targets"] != "none"
    kept = kept.assign(
        withstood=kept["draws"] - kept["hits"] if targeted else kept["correct"],
        withstood_sel=kept["draws_sel"] - kept["hits_sel"] if targeted else kept["correct_sel"],
        newly_wrong=kept["newly_wrong"] / kept["draws"],
        size=kept[str(row["norm"]).lower()].astype("float64").mask(kept["beyond"].astype(bool), np.inf),
    )
    return Judged(kept["index"].to_numpy(), **{n: kept[n].to_numpy(np.float64) for n in PER_IMAGE}), reason


def aggregates(judged: Judged, m: Sequence[int], *, stochastic: bool, attacked: bool) -> dict[str, Any]:
    """All aggregations of verdicts, by name; NaN where there is nothing to aggregate. See `bench.summarise.summary`.

    Args:
        judged: the verdicts.
        m: the M of Rob(M).
        stochastic: whether the defense is.
        attacked: False for clean images, of which no attack can succeed.
    """
    import numpy as np

    from bench.stats import Rate, attack_success_rate, median_perturbation, rob_at_m, wilson

    n = len(judged)
    share = judged.withstood / np.maximum(judged.draws, 1)
    low, high = wilson(share.sum(), n)
    known = ~np.isnan(judged.clean)
    meant = known & attacked
    rate = attack_success_rate(judged.clean[meant], judged.newly_wrong[meant]) if meant.any() else Rate(np.nan, np.nan)
    right = meant & (judged.clean > 0.5)
    repeated = {
        f"rob_m{i}": _mean(rob_at_m(judged.withstood, judged.draws, i))
        if stochastic and n and judged.draws.min() >= i
        else np.nan
        for i in m
    }
    return {
        "n_images": n,
        "draws": int(judged.draws.max()) if n else 0,
        "clean_mean": _mean(judged.clean[known]),
        "robust_mean": _mean(share),
        "robust_low": float(low),
        "robust_high": float(high),
        "rejected_mean": _mean(judged.rejected / np.maximum(judged.draws, 1)),
        **repeated,
        "majority": _mean(judged.majority),
        "mean_logit": _mean(judged.mean_logit),
        "asr": rate.value,
        "asr_newly_wrong": rate.numerator,
        "asr_originally_correct": rate.denominator,
        "median_perturbation": median_perturbation(judged.size[right], judged.success[right] > 0.5),
    }


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
