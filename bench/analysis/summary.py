"""Summarise the records: a row per defense and attack, and the per-image worst case of each defense."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.caveats import failures, labels, with_audit
from bench.analysis.columns import with_columns
from bench.analysis.frames import FolderOrFrame, results_of
from bench.analysis.public_names import public
from bench.analysis.records import CLEANS
from bench.analysis.results import CLEAN, load_cells, read_results
from bench.analysis.rows import COSTS, NOT_RUN, ROW, SETTING, TRAINING_SEED, Group, choose, grouped
from bench.analysis.scores import Scores, aggregates, bounds_of, common, intervals, no_verdict, of_rate
from bench.spec.aggregation import M, check_m
from bench.stats.proportions import Rate, spread
from bench.store.manifest import read_manifest
from defenses.utils.errors import UserError
from defenses.utils.hints import hint

WORST = "worst case"
REFUSED = ("rejected_mean", "right_or_refused_mean")
SEEDS = ("n_seeds", "clean_sd_seeds", "robust_sd_seeds")


@dataclass(frozen=True, eq=False)
class _SummaryLine:
    """A row of the summary, for one training seed.

    Args:
        seed: training seed.
        columns: values of the columns `ROW`, stochastic and planned.
        costs: costs per image, by the names of `COSTS`.
        scores: the verdicts.
        stochastic: True for a stochastic defense.
        status: "ok", or the missing cells and the reason.
    """

    seed: int
    columns: dict[str, Any]
    costs: dict[str, float]
    scores: Scores
    stochastic: bool
    status: str


@with_columns
def summary(
    source: FolderOrFrame, *, m: Sequence[int] | None = None, k: int | None = None, by_seed: bool = False
) -> pd.DataFrame:
    """Return the tidy summary of a board, numbers at full precision.

    Args:
        source: a results folder, a frame of `load_results` or `benchmark` or rows of it, or the result of
            `read_results`.
        m: the M of Rob(M); None: 5 and 15, as far as there are draws.
        k: the first k held-out draws of an image make majority and mean logit, the verdict of k replicates; None: those
            of the board, or its sequential rule. Of a results folder alone. Of an even k a tie is a lost majority; the
            mean logit has none.
        by_seed: True for a row per training seed, with a column "training_seed" and without ranks.

    Returns:
        A row per setting, defense, attack and view in board order, each defense followed by its "worst case": per
        image the worst of the clean image and all attacks, chosen on selection draws and counted on held-out ones
        (`bench.stats.worst_case.select_worst` breaks ties by the smaller margin on selection draws).
        Clean images ("none") and uniform noise ("uniform") have rows of their own with the same aggregations; the
        noise is a reference and no candidate for the worst case, and neither are rows of a known seed, judged on the
        one draw that the attacker knows.
        A refusal of an attacked image is a success of the defense in right_or_refused_mean alone (see
        `bench.analysis.detection`). rob_m<M> is unbiased, of stochastic defenses with at least M draws; with other `m`
        it has other columns. The interval of median_perturbation lies between two order statistics; NaN of
        evaluations_per_image: none was counted. The strict rank is of complete worst cases only, and of none that fails
        its audit.
        The robust columns and rob_m<M> count draws that withstand the attack: right ones, or under a targeted threat
        those that do not give the target, right or wrong (in the rows of clean images and noise too). The worst case
        is chosen by the same draws. clean_mean, majority and mean_logit always compare with the label.
        For a defense with several training seeds (n_seeds) every number is the mean over them, on the images with a
        verdict under all; the worst case is chosen for each trained model separately, and asr is the ratio of the
        means of its parts. The interval is of the images' means over seeds, n = images. A row is complete if it is
        complete for each of its seeds.
        Columns: those of `purebench columns summary`.

    Raises:
        UserError: no results there, a damaged file, an image with several verdicts in one row, or fewer draws than an
            M of `m` or than k.
    """
    results = results_of(source) if k is None else read_results(_folder(source, k), k=k)
    if k and k % 2 == 0:
        hint(f"k = {k} is even: half of the draws of an image is a lost majority; the mean logit has no ties")
    m = M if m is None else _checked(m, results.cells)
    rows: list[dict[str, object]] = []
    for seeds in grouped(results):
        lines = [_lines(group) for group in seeds]
        if by_seed:
            rows += [_over_seeds([line], m) | {TRAINING_SEED: line.seed} for of_seed in lines for line in of_seed]
        else:
            rows += [_over_seeds(same, m) for same in _by_row(lines)]
    names = _columns(m)
    if by_seed:
        names.insert(names.index("attack"), TRAINING_SEED)
    frame = pd.DataFrame(rows, columns=names)
    failed: dict[str, tuple[str, ...]] = {}
    if isinstance(source, str | Path):
        failed = failures(Path(source), read_manifest(Path(source)))
    return with_audit(public(ranked(frame, without=frame["defense"] if by_seed else labels(failed))), failed)


def clean_and_robust(source: FolderOrFrame) -> tuple[float, float]:
    """Return clean and worst-case accuracy of a defense, the pair that RobustBench's `benchmark` returns.

    Args:
        source: a results folder or a frame, see `summary`, of one defense at one threat.

    Raises:
        UserError: several defenses or threats, or images without a verdict of each attack.
    """
    rows = summary(source)
    worst = rows[rows["attack"] == WORST]
    if len(worst) != 1:
        raise UserError(f"there are {len(worst)} worst cases; give rows of one defense at one threat, or use summary")
    (row,) = worst.to_dict("records")
    if row["status"] != "ok":
        raise UserError(f"the worst case is {row['status']}; summary shows what there is")
    return float(row["clean_mean"]), float(row["robust_mean"])


def worst_row(seeds: Sequence[Group], m: Sequence[int] = M) -> dict[str, object]:
    """Return the row of `summary` for the worst case of a defense, or for its clean images if nothing attacks it.

    Args:
        seeds: the groups of its trainings in one setting, see `bench.analysis.rows.grouped`.
        m: the M of Rob(M).
    """
    rows = {same[0].columns["attack"]: same for same in _by_row([_lines(group) for group in seeds])}
    return _over_seeds(rows.get(WORST) or rows.get(CLEAN) or next(iter(rows.values())), m)


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the summary for a CSV, without empty columns on training seeds, refusals and arithmetic."""
    empty = [] if (frame["n_seeds"] > 1).any() else list(SEEDS)
    empty += [] if (frame["rejected_mean"] > 0).any() else [REFUSED[1], *bounds_of(REFUSED[1])]
    empty += [] if frame["compute"].any() else ["compute"]
    return frame.drop(columns=empty)


def _checked(m: Sequence[int], cells: pd.DataFrame) -> Sequence[int]:
    """Return the M; refuse one with too few draws."""
    draws = cells[cells["stochastic"].astype(bool) & ~cells["seed_known"]]["draws"]
    if len(draws):
        check_m(m, int(draws.min()))
    return m


def _folder(source: FolderOrFrame, k: int) -> str | Path:
    """Return a results folder whose draws are enough for k replicates."""
    if not isinstance(source, str | Path):
        raise UserError(f"a frame has verdicts and no draws, so that k = {k} needs the results folder; give its path")
    cells = load_cells(source)
    judged = cells[cells["stochastic"].astype(bool) & ~cells["seed_known"]]["draws"]
    least = int(judged.min()) if len(judged) else k
    if type(k) is not int or not 1 <= k <= least:
        raise UserError(f"k is {k}; it must be a whole number of held-out draws of an image, from 1 to {least}")
    return source


def _shares(m: Sequence[int]) -> tuple[str, ...]:
    """Return the columns that have an interval."""
    return ("clean_mean", "robust_mean", *REFUSED, *(f"rob_m{i}" for i in m), "majority", "mean_logit")


def _columns(m: Sequence[int]) -> list[str]:
    return [
        *ROW,
        *("gradient", "seed_known", "compute", "stochastic"),
        *("n_images", "planned", "coverage", "draws"),
        *(column for share in _shares(m) for column in (share, *bounds_of(share))),
        *("asr", *bounds_of("asr"), "asr_newly_wrong", "asr_originally_correct"),
        *("median_perturbation", *bounds_of("median_perturbation"), "median_perturbation_images"),
        *(*COSTS, *SEEDS, "status", "strict_rank"),
    ]


def _lines(group: Group) -> list[_SummaryLine]:
    """Return the rows of a trained defense, its worst case last if it has attacks."""
    lines = []
    for row in group.rows:
        columns = row.names | {"gradient": row.gradient, "seed_known": row.seed_known, "compute": row.compute}
        columns |= {"stochastic": row.stochastic, "planned": row.planned}
        lines.append(_SummaryLine(group.training_seed, columns, row.costs, row.scores, row.stochastic, row.status))
    return [*lines, _worst(group)] if group.attacks else lines


def _worst(group: Group) -> _SummaryLine:
    """Return the worst-case row of a group with attacks."""
    head = group.attacks[0]
    missing = [str(row) for row in group.needed if row.status != "ok"]
    # Clean images alone make no worst case.
    with_verdicts = [row for row in group.needed if len(row.scores)]
    scores = no_verdict()
    if any(row.attack != CLEAN for row in with_verdicts):
        choice = choose(with_verdicts)
        if choice is None:
            missing.append("the selection draws")
        else:
            scores = choice[0]
    columns = {name: head.names[name] for name in (*SETTING, "defense")}
    columns |= {"stochastic": head.stochastic, "planned": head.planned, "attack": WORST, "view": ""}
    columns |= {"gradient": "", "seed_known": False}
    columns["compute"] = "+".join(dict.fromkeys(row.compute for row in group.attacks if row.compute))
    columns["budget"] = "+".join(dict.fromkeys(row.names["budget"] for row in group.attacks))
    ran = [row.costs for row in group.attacks if len(row.scores)]
    costs = {name: sum(c[name] for c in ran) if ran else float("nan") for name in COSTS}
    none_ran = all(row.status == NOT_RUN for row in group.attacks)
    status = NOT_RUN if none_ran else f"partial: {_without(missing)}" if missing else "ok"
    return _SummaryLine(group.training_seed, columns, costs, scores, head.stochastic, status)


def _by_row(lines: Sequence[Sequence[_SummaryLine]]) -> list[list[_SummaryLine]]:
    """Group the rows that differ in their training seed only."""
    groups: dict[tuple[Any, ...], list[_SummaryLine]] = {}
    for line in (line for of_seed in lines for line in of_seed):
        groups.setdefault(tuple(line.columns[name] for name in ROW), []).append(line)
    return list(groups.values())


def _over_seeds(lines: Sequence[_SummaryLine], m: Sequence[int]) -> dict[str, Any]:
    """Return a row of the summary: means over training seeds, on the images with a verdict under all."""
    first = lines[0]
    index = common([line.scores for line in lines]) if len(lines) > 1 else first.scores.index
    attacked = first.columns["attack"] not in CLEANS
    each = [aggregates(line.scores.of(index), m, stochastic=line.stochastic, attacked=attacked) for line in lines]
    each = [values | line.costs for values, line in zip(each, lines, strict=True)]
    values = each[0] if len(each) == 1 else {name: float(np.mean([e[name] for e in each])) for name in each[0]}
    if len(lines) > 1:
        n = len(index)
        values |= of_rate(Rate(values["asr_newly_wrong"], values["asr_originally_correct"]))
        shares = {name: values[name] for name in _shares(m)}
        values |= {"n_images": n, "draws": int(values["draws"])} | intervals(shares, dict.fromkeys(shares, n))
    values |= {f"{name}_sd_seeds": spread([e[f"{name}_mean"] for e in each]) for name in ("clean", "robust")}
    if first.columns["attack"] == WORST:  # chosen with refusals as errors
        values |= dict.fromkeys((REFUSED[1], *bounds_of(REFUSED[1])), float("nan"))
    planned = first.columns["planned"]
    return first.columns | values | {"n_seeds": len(lines), "coverage": len(index) / planned, "status": _status(lines)}


def _status(lines: Sequence[_SummaryLine]) -> str:
    if len({line.status for line in lines}) == 1:
        return lines[0].status
    return f"partial: {_without([f'training seed {x.seed} ({x.status})' for x in lines if x.status != 'ok'])}"


def _without(missing: list[str]) -> str:
    return f"without (all of) {', '.join(missing[:3])}" + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")


def ranked(frame: pd.DataFrame, *, without: Collection[str] = ()) -> pd.DataFrame:
    """Return a summary with the ranks of complete worst cases within each setting; ties share the better rank.

    Args:
        frame: a summary; its column "strict_rank" is replaced in place.
        without: defenses without a rank.
    """
    complete = frame[(frame["attack"] == WORST) & (frame["status"] == "ok") & ~frame["defense"].isin(list(without))]
    ranks = complete.groupby(list(SETTING))["robust_mean"].rank(ascending=False, method="min")
    frame["strict_rank"] = ranks.reindex(frame.index).astype("Int64")
    return frame
