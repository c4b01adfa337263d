"""What the records say, in numbers: a row per defense and attack, and the per-image worst case of each defense."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.groups import NOT_RUN, ROW, SETTING, Group, Row, choose, grouped
from bench.judged import aggregates, no_verdict
from bench.results import CLEAN, Results, read_results

if TYPE_CHECKING:
    import pandas as pd

WORST = "worst case"
_COSTS = ("evaluations_per_image", "queries_per_image", "seconds_per_image")
M = (5, 15)  # submissions of Rob(M) by default


def summary(source: str | Path | Results, *, m: Sequence[int] = M) -> pd.DataFrame:
    """The tidy summary of a board, numbers at full precision.

    Args:
        source: a results folder, or what `read_results` gave.
        m: the M of Rob(M).

    Returns:
        A row per setting, defense, attack and view in board order, each defense followed by its "worst case": per
        image the worst of the clean image and all attacks, chosen on selection draws and counted on held-out ones (of
        equals the smaller perturbation that succeeds).
        Clean images ("none") and uniform noise ("uniform") have rows of their own with the same aggregations; the
        noise is a yardstick and no candidate for the worst case. Columns, shares in [0, 1]:
        n_images (with a verdict), planned, coverage; draws (held-out ones per image); clean_mean, robust_mean
        (means over draws, then images); robust_low, robust_high (Wilson 95%, n = images); rejected_mean; rob_m<M>
        (unbiased; stochastic defenses with at least M draws); majority; mean_logit; asr, asr_newly_wrong,
        asr_originally_correct (draw by draw); median_perturbation (failures are infinite); evaluations_per_image
        (forwards + 2 x backwards, of the attack), queries_per_image, seconds_per_image; status ("ok", or what is
        missing); rank (by robust_mean, of complete worst cases alone).
        The robust columns and rob_m<M> count draws that withstand the attack: right ones, and under a targeted threat
        those that do not give the target, be they right or not (in the rows of clean images and noise too). By the
        same draws the worst case is chosen. clean_mean, majority and mean_logit always ask for the label.

    Raises:
        UserError: no results there, a damaged file, or an image with several verdicts in one row.
    """
    import pandas as pd

    results = source if isinstance(source, Results) else read_results(source)
    rows: list[dict[str, Any]] = []
    for group in grouped(results):
        of_group = [_attack_row(row, m) for row in group.rows]
        rows += of_group + ([_worst_row(group, of_group, m)] if group.attacks else [])
    frame = pd.DataFrame(rows, columns=_columns(m))
    return _ranked(frame)


def _columns(m: Sequence[int]) -> list[str]:
    return [
        *ROW,
        "stochastic",
        *("n_images", "planned", "coverage", "draws", "clean_mean", "robust_mean", "robust_low", "robust_high"),
        *("rejected_mean", *(f"rob_m{i}" for i in m), "majority", "mean_logit"),
        *("asr", "asr_newly_wrong", "asr_originally_correct", "median_perturbation"),
        *(*_COSTS, "status", "rank"),
    ]


def _attack_row(row: Row, m: Sequence[int]) -> dict[str, Any]:
    values = row.names | {"stochastic": row.stochastic, "planned": row.planned, "status": row.status}
    values |= aggregates(row.judged, m, stochastic=row.stochastic, attacked=row.attack != CLEAN) | _costs(row.cells)
    return values | {"coverage": len(row.judged) / row.planned}


def _costs(cells: pd.DataFrame) -> dict[str, float]:
    """Cost of the attack per image, over the cells that have finished."""
    done = cells[cells["status"] == "ok"]
    images = float(done["images"].sum())
    names = ("forwards", "backwards", "queries", "seconds_attack")
    total = {name: float(done[name].sum()) / images if images else float("nan") for name in names}
    return {
        "evaluations_per_image": total["forwards"] + 2 * total["backwards"],
        "queries_per_image": total["queries"],
        "seconds_per_image": total["seconds_attack"],
    }


def _worst_row(group: Group, rows: Sequence[dict[str, Any]], m: Sequence[int]) -> dict[str, Any]:
    """The worst-case row of a group that has attacks; `rows` are its other rows."""
    head = group.attacks[0]
    gaps = [str(row) for row in group.needed if row.status != "ok"]
    # Unless some attack has judged an image, its worst case is not known.
    judged = [row for row in group.needed if len(row.judged)]
    chosen = no_verdict()
    if any(row.attack != CLEAN for row in judged):
        choice = choose(judged)
        if choice is None:
            gaps.append("the selection draws")
        else:
            chosen = choice[0]
    values = {name: head.names[name] for name in (*SETTING, "defense")}
    values |= {"stochastic": head.stochastic, "planned": head.planned, "attack": WORST, "view": ""}
    values["budget"] = "+".join(dict.fromkeys(row.names["budget"] for row in group.attacks))
    values |= aggregates(chosen, m, stochastic=head.stochastic, attacked=True)
    ran = [values for row, values in zip(group.rows, rows, strict=True) if row in group.attacks and len(row.judged)]
    values |= {name: sum(r[name] for r in ran) if ran else float("nan") for name in _COSTS}
    values["coverage"] = len(chosen) / head.planned
    idle = all(row.status == NOT_RUN for row in group.attacks)
    values["status"] = NOT_RUN if idle else f"partial: {_short(gaps)}" if gaps else "ok"
    return values


def _short(gaps: list[str]) -> str:
    return f"without (all of) {', '.join(gaps[:3])}" + (f" and {len(gaps) - 3} more" if len(gaps) > 3 else "")


def _ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """Ranks of complete worst cases within each setting; equals share the better rank."""
    complete = frame[(frame["attack"] == WORST) & (frame["status"] == "ok")]
    ranks = complete.groupby(list(SETTING))["robust_mean"].rank(ascending=False, method="min")
    frame["rank"] = ranks.reindex(frame.index).astype("Int64")
    return frame
