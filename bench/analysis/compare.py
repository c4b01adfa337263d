"""Compare two rows of a table on the same images: two defenses, or two attacks on one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.analysis.caveats import caveats
from bench.analysis.records import CLEAN, NULL
from bench.analysis.results import Results, read_results
from bench.analysis.rows import SETTING, Group, Row, choose, grouped
from bench.analysis.scores import Scores, common
from bench.stats.bootstrap import Interval, over_trainings
from bench.stats.paired import Paired, paired_difference
from bench.stats.proportions import wilson
from bench.store.parts import stored
from defenses.utils.errors import UserError, unknown
from defenses.utils.names import portable

if TYPE_CHECKING:
    from defenses.utils.arrays import F64, I64, Bools

_WORST = "worst case"
_ALIASES = {"clean images": CLEAN, "uniform noise": NULL}


@dataclass(frozen=True, eq=False)
class Side:
    """A row in a comparison.

    Args:
        title: the defense and the attack.
        setting: values of `bench.analysis.rows.SETTING`.
        index: dataset indices, ascending, int64 [images].
        label: right classes, [images].
        shares: shares of held-out draws that withstand the attack, [trainings, images] in [0, 1].
        decisions: True where the majority of the draws decides right, bool [images]; None for several trainings.
        draws: held-out draws per image.
        protocol: held-out and selection draws (None for a deterministic defense), and the budget; equal for rows that
            compare.
    """

    title: str
    setting: tuple[Any, ...]
    index: I64
    label: F64
    shares: F64
    decisions: Bools | None
    draws: int
    protocol: tuple[tuple[int, int] | None, str]

    @property
    def where(self) -> str:
        """The setting as text."""
        dataset, split, indices, norm, eps, targets = self.setting
        return f"{portable(dataset)} {split} ({indices}), {norm} {eps}" + (
            "" if targets == "none" else f", target {targets}"
        )

    def share(self, confidence: float) -> Interval:
        """Return the mean over images, with Wilson's interval as in the tables."""
        n, value = self.shares.shape[1], float(self.shares.mean())
        low, high = wilson(value * n, n, confidence)
        return Interval(value, float(low), float(high), n)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparison of row a with row b in one setting.

    Args:
        a: the first row.
        b: the second row.
        planned: number of images of the setting.
        difference: mean of a minus mean of b, over images, in [-1, 1].
        how: method of its interval.
        decisions: difference of majority decisions (or of the single verdicts of deterministic defenses), with
            McNemar's test; None for several trainings.
        both: number of images that both decide right; 0 if `decisions` is None.
        caveats: caveats of both sides, see `bench.analysis.caveats`.
    """

    a: Side
    b: Side
    planned: int
    difference: Interval
    how: str
    decisions: Paired | None
    both: int
    caveats: tuple[str, ...] = ()


def compare(
    source: str | Path,
    a: str,
    b: str,
    *,
    other: str | Path | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
) -> list[Comparison]:
    """Compare two rows of results on the same images, in every setting that has both.

    The difference has Bonett and Price's interval over images (`bench.stats.paired.paired_difference`); the variance
    of draws is in the shares. If a side has several trainings, a bootstrap varies these too (`bench.stats.bootstrap`).

    Args:
        source: the results folder.
        a: a row: "adp" (its worst case), "adp@autoattack:rand" (one attack), "adp@autoattack:rand (bpda)" (one view of
            several), "adp@none" (clean images).
        b: another row.
        other: the results folder of b. Default: `source`.
        confidence: in (0, 1).
        seed: of the bootstrap over several trainings.
        resamples: number of resamples of that bootstrap.

    Returns:
        A comparison per setting.

    Raises:
        UserError: unknown row, or rows that do not compare: other images, threat, draws, budget or data.
    """
    results_a = read_results(source)
    results_b = results_a if other is None else read_results(other)
    if a == b and other is None:
        raise UserError(f'"{a}" is compared with itself; name another defense or attack')
    first, second = ({side.setting: side for side in _sides(r, name)} for r, name in ((results_a, a), (results_b, b)))
    settings = [setting for setting in first if setting in second]
    if not settings:
        of_a, of_b = (next(iter(sides.values())).where for sides in (first, second))
        raise UserError(f"{a} was judged on {of_a} and {b} on {of_b}; compare rows of one setting")
    if other is not None:
        _check_same_data(Path(source), Path(other), settings)
    planned = {tuple(group.rows[0].names[n] for n in SETTING): group.rows[0].planned for group in _groups(results_a)}
    texts = [*_caveats(source, results_a, a), *_caveats(other or source, results_b, b)]
    comparisons = []
    for setting in settings:
        left, right = first[setting], second[setting]
        _check_comparable(left, right)
        comparison = _compared(left, right, planned[setting], confidence, seed, resamples)
        comparisons.append(replace(comparison, caveats=tuple(dict.fromkeys(texts))))
    return comparisons


def _caveats(folder: str | Path, results: Results, name: str) -> list[str]:
    defense, _ = _parsed(name, list(dict.fromkeys(results.cells["defense"])))
    return caveats(Path(folder), results).get(defense, [])


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


def _check_same_data(folder: Path, other: Path, settings: Sequence[tuple[Any, ...]]) -> None:
    """Refuse folders with different versions of a data set.

    Raises:
        UserError: their revisions or index lists differ.
    """
    versions = []
    for results in (folder, other):
        lines = [line for line, _ in stored(results / "parts").values()]
        versions.append({(x["dataset"], x["split"], x["indices"], *x["identity"]["data"][2:4]) for x in lines})
    for setting in settings:
        left, right = ({v for v in keys if v[:3] == setting[:3]} for keys in versions)
        if left != right:
            data = " ".join(setting[:3])
            raise UserError(f"{folder} and {other} hold other versions of {data}; run one of them again")
