"""What the records say, in numbers: a row per defense and attack, and the per-image worst case of each defense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.judged import PER_IMAGE, Judged, aggregates, judged_of, no_verdict
from bench.results import CLEAN, NULL, Results, read_results

if TYPE_CHECKING:
    import pandas as pd

WORST, NOT_RUN = "worst case", "not run"
SETTING = ("dataset", "split", "indices", "norm", "eps", "targets")  # rows are compared within one setting
_ROW = (*SETTING, "defense", "attack", "view", "budget")
M = (5, 15)  # submissions of Rob(M) by default


def summary(source: str | Path | Results, *, m: Sequence[int] = M) -> pd.DataFrame:
    """The tidy summary of a board, numbers at full precision.

    Args:
        source: a results folder, or what `read_results` gave.
        m: the M of Rob(M).

    Returns:
        A row per setting, defense, attack and view in board order, each defense followed by its "worst case": per
        image the worst of the clean image and all attacks, chosen on selection draws and counted on held-out ones.
        Clean images ("none") and uniform noise ("uniform") have rows of their own with the same aggregations; the
        noise is a yardstick and no candidate for the worst case. Columns, shares in [0, 1]:
        n_images (with a verdict), planned, coverage; draws (held-out ones per image); clean_mean, robust_mean
        (means over draws, then images); robust_low, robust_high (Wilson 95%, n = images); rejected_mean; rob_m<M>
        (unbiased; stochastic defenses with at least M draws); majority; mean_logit; asr, asr_newly_wrong,
        asr_originally_correct; median_perturbation (failures are infinite); evaluations_per_image (forwards +
        2 x backwards, of the attack), queries_per_image, seconds_per_image; status ("ok", or what is missing); rank
        (by robust_mean, of complete worst cases alone).

    Raises:
        UserError: no results there, or a damaged file.
    """
    import pandas as pd

    results = source if isinstance(source, Results) else read_results(source)
    records = results.records.merge(results.votes, on=["cell", "index"], how="left")
    by_cell = dict(iter(records.groupby("cell", sort=False)))
    rows: list[dict[str, Any]] = []
    for _, setting in results.cells.groupby(list(SETTING), sort=False):
        planned = int(setting.drop_duplicates("block")["images"].sum())
        groups = [_attack_rows(cells, by_cell, planned, m) for _, cells in setting.groupby("defense", sort=False)]
        everywhere = _unsupported_everywhere([row for group in groups for row, _ in group])
        for group in groups:
            rows += [row for row, _ in group]
            rows += _worst_row(group, everywhere, planned, m)
    frame = pd.DataFrame(rows, columns=_columns(m))
    return _ranked(frame)


def _columns(m: Sequence[int]) -> list[str]:
    return [
        *_ROW,
        "stochastic",
        *("n_images", "planned", "coverage", "draws", "clean_mean", "robust_mean", "robust_low", "robust_high"),
        *("rejected_mean", *(f"rob_m{i}" for i in m), "majority", "mean_logit"),
        *("asr", "asr_newly_wrong", "asr_originally_correct", "median_perturbation"),
        *("evaluations_per_image", "queries_per_image", "seconds_per_image", "status", "rank"),
    ]


Group = list[tuple[dict[str, Any], Judged]]


def _attack_rows(cells: pd.DataFrame, by_cell: dict[Any, pd.DataFrame], planned: int, m: Sequence[int]) -> Group:
    """The rows of one defense in one setting, with the verdicts behind each."""
    group: Group = []
    for names, part in cells.groupby(list(_ROW), sort=False):
        judged, reason = judged_of(part, by_cell)
        row: dict[str, Any] = dict(zip(_ROW, names, strict=True)) | {"stochastic": bool(part["stochastic"].any())}
        row |= aggregates(judged, m, stochastic=row["stochastic"], attacked=row["attack"] != CLEAN) | _costs(part)
        row |= {"planned": planned, "coverage": len(judged) / planned}
        group.append((row | {"status": _status(part, len(judged), planned, reason)}, judged))
    return group


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


def _unsupported_everywhere(rows: Iterable[dict[str, Any]]) -> set[str]:
    """Attacks that no defense of a setting can be attacked with: all defenses are compared without them."""
    supported: dict[str, bool] = {}
    for row in rows:
        possible = not str(row["status"]).startswith(("unsupported", NOT_RUN))
        supported[row["attack"]] = supported.get(row["attack"], False) or possible
    return {attack for attack, possible in supported.items() if not possible}


def _worst_row(group: Group, everywhere: set[str], planned: int, m: Sequence[int]) -> list[dict[str, Any]]:
    """The worst-case row of one defense in one setting; none when the board attacks it with nothing."""
    attacks = [(row, judged) for row, judged in group if row["attack"] not in (CLEAN, NULL)]
    if not attacks:
        return []
    clean = [(row, judged) for row, judged in group if row["attack"] == CLEAN]
    needed = [
        (row, judged) for row, judged in clean + attacks if row["attack"] not in everywhere or row["status"] == NOT_RUN
    ]
    gaps = [_name(row) for row, _ in needed if row["status"] != "ok"]
    # Unless every attack has judged an image, its worst case is not known.
    some = [judged for row, judged in needed if len(judged) and row["attack"] != CLEAN]
    candidates = [judged for row, judged in needed if len(judged)] if some else []
    head = attacks[0][0]
    row = {name: head[name] for name in (*SETTING, "defense", "stochastic", "planned")}
    row |= {"attack": WORST, "view": "", "budget": _budget(row["budget"] for row, _ in attacks)}
    chosen = _chosen(candidates, bool(head["stochastic"]))
    if chosen is None:
        gaps.append("the selection draws")
        chosen = no_verdict()
    row |= aggregates(chosen, m, stochastic=bool(head["stochastic"]), attacked=True)
    costs = [name for name in head if name.endswith("_per_image")]
    ran = [r for r, judged in attacks if len(judged)]
    row |= {name: sum(r[name] for r in ran) if ran else float("nan") for name in costs}
    row["coverage"] = len(chosen) / planned
    idle = all(r["status"] == NOT_RUN for r, _ in attacks)
    row["status"] = NOT_RUN if idle else f"partial: {_short(gaps)}" if gaps else "ok"
    return [row]


def _name(row: dict[str, Any]) -> str:
    return f"{row['attack']} ({row['view']})" if row["view"] else str(row["attack"])


def _short(gaps: list[str]) -> str:
    return f"without (all of) {', '.join(gaps[:3])}" + (f" and {len(gaps) - 3} more" if len(gaps) > 3 else "")


def _budget(budgets: Iterable[str]) -> str:
    return "+".join(dict.fromkeys(budgets))


def _chosen(candidates: list[Judged], stochastic: bool) -> Judged | None:
    """Per image the verdict of the worst candidate; None when selection draws are lacking."""
    import numpy as np

    from bench.stats import worst_case

    if not candidates:
        return no_verdict()
    index = candidates[0].index
    for judged in candidates[1:]:
        index = np.intersect1d(index, judged.index)
    index = np.sort(index)
    at = []
    for judged in candidates:
        order = np.argsort(judged.index)
        at.append(order[np.searchsorted(judged.index, index, sorter=order)])
    stacked = {
        name: np.stack([getattr(judged, name)[i] for judged, i in zip(candidates, at, strict=True)])
        for name in PER_IMAGE
    }
    # One verdict of a deterministic defense serves both purposes.
    sel, n_sel = ("correct_sel", "draws_sel") if stochastic else ("correct", "draws")
    if (stacked[n_sel] <= 0).any():
        return None
    worst = worst_case(stacked[sel], stacked["correct"], stacked[n_sel], stacked["draws"])
    columns = np.arange(len(index))
    return Judged(index, **{name: values[worst.attack, columns] for name, values in stacked.items()})


def _ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """Ranks of complete worst cases within each setting; equals share the better rank."""
    complete = frame[(frame["attack"] == WORST) & (frame["status"] == "ok")]
    ranks = complete.groupby(list(SETTING))["robust_mean"].rank(ascending=False, method="min")
    frame["rank"] = ranks.reindex(frame.index).astype("Int64")
    return frame
