"""Compare two rows of a table on the same images: two defenses, or two attacks on one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.caveats import caveats, caveats_of_frame
from bench.analysis.comparison import Comparison, Side
from bench.analysis.frames import results_of
from bench.analysis.records import CLEAN, NULL
from bench.analysis.results import Results
from bench.analysis.rows import SETTING, Group, Row, choose, grouped
from bench.analysis.same_data import check_same_data
from bench.analysis.scores import Scores, common
from bench.stats.bootstrap import Interval, over_trainings
from bench.stats.paired import paired_difference
from defenses.utils.errors import UserError, unknown

_WORST = "worst case"
_ALIASES = {"clean images": CLEAN, "uniform noise": NULL}


def compare(
    source: str | Path | pd.DataFrame,
    a: str,
    b: str,
    *,
    other: str | Path | pd.DataFrame | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
) -> list[Comparison]:
    """Compare two rows of results on the same images, in every setting that has both.

    The difference has Bonett and Price's interval over images (`bench.stats.paired.paired_difference`); the variance
    of draws is in the shares. If a side has several trainings, a bootstrap varies these too (`bench.stats.bootstrap`).

    Args:
        source: the results folder, or a frame of `load_results` or `benchmark`.
        a: a row: "adp" (its worst case), "adp@autoattack:rand" (one attack), "adp@autoattack:rand (bpda)" (one view of
            several), "adp@none" (clean images).
        b: another row.
        other: the results folder or frame of b. Default: `source`.
        confidence: in (0, 1).
        seed: of the bootstrap over several trainings.
        resamples: number of resamples of that bootstrap.

    Returns:
        A comparison per setting; printed, it is what `purebench compare` prints.

    Raises:
        UserError: unknown row, or rows that do not compare: other images, threat, draws, budget or data.
    """
    results_a = results_of(source)
    results_b = results_a if other is None else results_of(other)
    if a == b and other is None:
        raise UserError(f'"{a}" is compared with itself; name another defense or attack')
    first, second = ({side.setting: side for side in _sides(r, name)} for r, name in ((results_a, a), (results_b, b)))
    settings = [setting for setting in first if setting in second]
    if not settings:
        of_a, of_b = (next(iter(sides.values())).where for sides in (first, second))
        raise UserError(f"{a} was judged on {of_a} and {b} on {of_b}; compare rows of one setting")
    if other is not None:
        check_same_data(source, other, settings)
    planned = {tuple(group.rows[0].names[n] for n in SETTING): group.rows[0].planned for group in _groups(results_a)}
    texts = [*_caveats(source, results_a, a), *_caveats(source if other is None else other, results_b, b)]
    comparisons = []
    for setting in settings:
        left, right = first[setting], second[setting]
        _check_comparable(left, right)
        comparison = _compared(left, right, planned[setting], confidence, seed, resamples)
        comparisons.append(replace(comparison, confidence=confidence, caveats=tuple(dict.fromkeys(texts))))
    return comparisons


def _caveats(source: str | Path | pd.DataFrame, results: Results, name: str) -> list[str]:
    defense, _ = _parsed(name, list(dict.fromkeys(results.cells["defense"])))
    if isinstance(source, pd.DataFrame):
        return caveats_of_frame(source).get(defense, [])
    return caveats(Path(source), results).get(defense, [])


def _compared(a: Side, b: Side, planned: int, confidence: float, seed: int, resamples: int) -> Comparison:
    decisions, both = None, 0
    if a.decisions is not None and b.decisions is not None:
        decisions = paired_difference(a.decisions, b.decisions, confidence=confidence)
        both = int((a.decisions & b.decisions).sum())
    if len(a.shares) > 1 or len(b.shares) > 1:
        interval = over_trainings(a.shares, b.shares, confidence=confidence, seed=seed, resamples=resamples)
        return Comparison(a, b, planned, interval, "images resampled, trainings by Student's t", decisions, both)
    shares = paired_difference(a.shares[0], b.shares[0], confidence=confidence)
    interval = Interval(shares.difference, shares.low, shares.high, shares.n)
    return Comparison(a, b, planned, interval, "Bonett and Price, paired images", decisions, both)


def _groups(results: Results) -> Iterator[Group]:
    return (group for seeds in grouped(results) for group in seeds)


def _sides(results: Results, name: str) -> Iterator[Side]:
    """Yield a row of the results in each setting that has it.

    Raises:
        UserError: no setting has it.
    """
    defenses = list(dict.fromkeys(results.cells["defense"]))
    defense, attack = _parsed(name, defenses)
    rows: dict[str, None] = {}
    missing = True
    for seeds in grouped(results):
        if seeds[0].rows[0].names["defense"] != defense:
            continue
        picked = [_picked(group, attack) for group in seeds]
        rows.update(dict.fromkeys(str(row) for group in seeds for row in group.rows))
        if all(p is not None for p in picked):
            missing = False
            yield _side(name, attack, [p for p in picked if p is not None])
    if missing:
        raise unknown(f"row of {defense}", attack or _WORST, list(rows))


def _parsed(name: str, defenses: Sequence[str]) -> tuple[str, str]:
    """Return the defense and attack of "DEFENSE[@ATTACK]"; labels may contain "@" themselves."""
    if name in defenses:
        return name, ""
    for defense in sorted(defenses, key=len, reverse=True):
        if name.startswith(f"{defense}@"):
            attack = name.removeprefix(f"{defense}@")
            return defense, "" if attack == _WORST else _ALIASES.get(attack, attack)
    raise unknown("defense", name.partition("@")[0], list(defenses))


def _picked(group: Group, attack: str) -> tuple[Scores, Sequence[Row]] | None:
    """Return the verdicts of an attack, or of the worst case, with their rows; None if the group has no such row."""
    if not attack:
        rows = group.needed
        chosen = choose(rows) if group.attacks and rows else None
        return None if chosen is None else (chosen[0], rows)
    by_form = ([row for row in group.rows if _names(row)[form] == attack] for form in range(3))
    matches = next(filter(None, by_form), [])
    if len(matches) > 1:
        views = '", "'.join(str(r) for r in matches)
        raise UserError(f'"{attack}" names several rows of {matches[0].names["defense"]}; take one of "{views}"')
    return (matches[0].scores.of(np.sort(matches[0].scores.index)), matches) if matches else None


def _names(row: Row) -> tuple[str, str, str]:
    """Return the names of an attack: with its view, alone, and with the gradient mode of its view."""
    return str(row), row.attack, f"{row.attack} ({str(row.names['view']).split(',')[0]})"


def _side(name: str, attack: str, picked: Sequence[tuple[Scores, Sequence[Row]]]) -> Side:
    """Return a side of a comparison from the verdicts and rows of each training."""
    index = common([scores for scores, _ in picked])
    if not len(index):
        raise UserError(f'"{name}" has no verdicts ({picked[0][1][0].status}); run its cells first')
    each = [scores.of(index) for scores, _ in picked]
    rows = picked[0][1]
    stochastic, first = rows[0].stochastic, rows[0].names
    draws = int(each[0].draws.max())
    shares = np.stack([scores.withstood / scores.draws for scores in each])
    decisions = shares[0] > 0.5
    if stochastic and first["targets"] == "none" and not np.isnan(each[0].majority).any():
        decisions = each[0].majority == 1  # among several classes the label may win with less than half
    budget = "+".join(dict.fromkeys(str(row.names["budget"]) for row in rows))
    seeds = f", mean over {len(picked)} trainings" if len(picked) > 1 else ""
    return Side(
        f"{first['defense']}, {(attack and str(rows[0])) or _WORST}{seeds}",
        tuple(first[n] for n in SETTING),
        index,
        each[0].label,
        shares,
        None if len(picked) > 1 else decisions,
        draws,
        ((draws, int(each[0].draws_sel.max())) if stochastic else None, budget),
    )


def _check_comparable(a: Side, b: Side) -> None:
    """Refuse rows that do not compare.

    Raises:
        UserError: other images, draws or budget.
    """
    if not np.array_equal(a.index, b.index):
        only_a, only_b = (len(np.setdiff1d(x.index, y.index)) for x, y in ((a, b), (b, a)))
        raise UserError(
            f"{a.title} has verdicts of {only_a} images that {b.title} has not, and {only_b} the other way round; "
            "run the missing cells"
        )
    if not np.array_equal(a.label, b.label):
        raise UserError(f"{a.title} and {b.title} have other labels for the same indices; these are two data sets")
    (draws_a, budget_a), (draws_b, budget_b) = a.protocol, b.protocol
    if draws_a and draws_b and draws_a != draws_b:
        raise UserError(
            f"{a.title} is judged by {draws_a[0]} + {draws_a[1]} draws and {b.title} by {draws_b[0]} + {draws_b[1]}; "
            "judge both by the same"
        )
    if budget_a != budget_b:
        raise UserError(f"{a.title} was attacked with the {budget_a} budget and {b.title} with the {budget_b} one")
