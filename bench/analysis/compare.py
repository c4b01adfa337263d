"""Two rows of a table against each other, on the same images: two defenses, or two attacks on one."""

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
from defenses.utils.arrays import F64, Bools
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from defenses.utils.arrays import I64

_WORST = "worst case"
_ALIASES = {"clean images": CLEAN, "uniform noise": NULL}


@dataclass(frozen=True, eq=False)
class Side:
    """One row of a comparison.

    Args:
        title: the defense and the attack.
        setting: what `bench.analysis.rows.SETTING` names.
        index: dataset indices, ascending.
        label: the right classes.
        shares: of held-out draws that withstand the attack, [trainings, images] in [0, 1].
        decisions: bool [images], of the majority of the draws; None of several trainings, which make no vote.
        draws: held-out draws per image.
        judged_by: what has to be equal for verdicts to compare: draws and selection draws (none of a deterministic
            defense, which needs none), and the budget.
    """

    title: str
    setting: tuple[Any, ...]
    index: I64
    label: F64
    shares: F64
    decisions: Bools | None
    draws: int
    judged_by: tuple[tuple[int, int] | None, str]

    @property
    def where(self) -> str:
        """The setting, in words."""
        dataset, split, indices, norm, eps, targets = self.setting
        return f"{dataset} {split} ({indices}), {norm} {eps}" + ("" if targets == "none" else f", target {targets}")

    def share(self, confidence: float) -> Interval:
        """The mean over images, with Wilson's interval as in the tables."""
        n, value = self.shares.shape[1], float(self.shares.mean())
        low, high = wilson(value * n, n, confidence)
        return Interval(value, float(low), float(high), n)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Row a against row b in one setting.

    Args:
        a: the one row.
        b: the other.
        planned: images of the setting.
        difference: mean of a minus mean of b, over images, in [-1, 1].
        how: what its interval is made by.
        decisions: the same of majority decisions (or of the single verdicts of deterministic defenses), with
            McNemar's test; None where there are several trainings.
        both: images that both decide right; 0 where `decisions` is None.
        caveats: what speaks against a side, see `bench.analysis.caveats`.
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

    The difference has Bonett and Price's interval (`bench.stats.paired.paired_difference`) over images; what the
    draws of random defenses add is in the shares. Where a side has several trainings, these vary too, in a bootstrap
    (`bench.stats.bootstrap`).

    Args:
        source: the results folder.
        a: a row: "adp" (its worst case), "adp@autoattack:rand" (one attack), "adp@autoattack:rand (bpda)" (one view of
            several), "adp@none" (clean images).
        b: the same.
        other: the folder of b. Default: the same.
        confidence: in (0, 1).
        seed: of the bootstrap over several trainings.
        resamples: of that bootstrap.

    Raises:
        UserError: no such row, or rows that do not compare: other images, threat, draws, budget or data.
    """
    here = read_results(source)
    there = here if other is None else read_results(other)
    if a == b and other is None:
        raise UserError(f'"{a}" is compared with itself; name another defense or attack')
    first, second = ({side.setting: side for side in _sides(r, name)} for r, name in ((here, a), (there, b)))
    settings = [setting for setting in first if setting in second]
    if not settings:
        of_a, of_b = (next(iter(sides.values())).where for sides in (first, second))
        raise UserError(f"{a} was judged on {of_a} and {b} on {of_b}; compare rows of one setting")
    planned = {tuple(group.rows[0].names[n] for n in SETTING): group.rows[0].planned for group in _groups(here)}
    if other is not None:
        _same_data(Path(source), Path(other), settings)
    sides = ((source, here, a), (other or source, there, b))
    against = [text for side in sides for text in _caveats(*side)]
    found = []
    for setting in settings:
        left, right = first[setting], second[setting]
        _refuse(left, right)
        made = _compared(left, right, planned[setting], confidence, seed, resamples)
        found.append(replace(made, caveats=tuple(dict.fromkeys(against))))
    return found


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
    return (group for trained in grouped(results) for group in trained)


def _sides(results: Results, name: str) -> Iterator[Side]:
    """A row of the results in each setting that has it.

    Raises:
        UserError: no setting has it.
    """
    defenses = list(dict.fromkeys(results.cells["defense"]))
    defense, attack = _parsed(name, defenses)
    rows: dict[str, None] = {}
    missing = True
    for trained in grouped(results):
        if trained[0].rows[0].names["defense"] != defense:
            continue
        picked = [_picked(group, attack) for group in trained]
        rows.update(dict.fromkeys(str(row) for group in trained for row in group.rows))
        if all(p is not None for p in picked):
            missing = False
            yield _side(name, attack, trained, [p for p in picked if p is not None])
    if missing:
        raise unknown(f"row of {defense}", attack or _WORST, list(rows))


def _parsed(name: str, defenses: Sequence[str]) -> tuple[str, str]:
    """(Defense, attack) of "DEFENSE[@ATTACK]"; labels may contain "@" themselves."""
    if name in defenses:
        return name, ""
    for defense in sorted(defenses, key=len, reverse=True):
        if name.startswith(f"{defense}@"):
            attack = name.removeprefix(f"{defense}@")
            return defense, "" if attack == _WORST else _ALIASES.get(attack, attack)
    raise unknown("defense", name.partition("@")[0], list(defenses))


def _picked(group: Group, attack: str) -> tuple[Scores, Sequence[Row]] | None:
    """The verdicts that are asked for, with the rows behind them; None where the group has no such row."""
    if not attack:
        rows = group.needed
        chosen = choose(rows) if group.attacks and rows else None
        return None if chosen is None else (chosen[0], rows)
    called = [_names(row) for row in group.rows]
    by_kind = [
        [row for row, names in zip(group.rows, called, strict=True) if names[kind] == attack] for kind in range(3)
    ]
    named = next(filter(None, by_kind), [])
    if len(named) > 1:
        views = '", "'.join(str(r) for r in named)
        raise UserError(f'"{attack}" names several rows of {named[0].names["defense"]}; take one of "{views}"')
    return (named[0].judged.of(np.sort(named[0].judged.index)), named) if named else None


def _names(row: Row) -> tuple[str, str, str]:
    """What an attack may be called: with its view, alone, and with the gradient mode of it as tables have it."""
    return str(row), row.attack, f"{row.attack} ({str(row.names['view']).split(',')[0]})"


def _side(name: str, attack: str, trained: Sequence[Group], picked: Sequence[tuple[Scores, Sequence[Row]]]) -> Side:
    index = common([judged for judged, _ in picked])
    if not len(index):
        raise UserError(f'"{name}" has no verdicts ({picked[0][1][0].status}); run its cells first')
    each = [judged.of(index) for judged, _ in picked]
    rows = picked[0][1]
    stochastic, first = rows[0].stochastic, rows[0].names
    draws = int(each[0].draws.max())
    shares = np.stack([judged.withstood / judged.draws for judged in each])
    decisions = shares[0] > 0.5
    if stochastic and first["targets"] == "none" and not np.isnan(each[0].majority).any():
        decisions = each[0].majority == 1  # of several classes, the label may win with less than half
    budget = "+".join(dict.fromkeys(str(row.names["budget"]) for row in rows))
    seeds = f", mean over {len(trained)} trainings" if len(trained) > 1 else ""
    return Side(
        f"{first['defense']}, {(attack and str(rows[0])) or _WORST}{seeds}",
        tuple(first[n] for n in SETTING),
        index,
        each[0].label,
        shares,
        None if len(trained) > 1 else decisions,
        draws,
        ((draws, int(each[0].draws_sel.max())) if stochastic else None, budget),
    )


def _refuse(a: Side, b: Side) -> None:
    """Refuse rows that do not compare.

    Raises:
        UserError: other images, draws or budget.
    """
    if not np.array_equal(a.index, b.index):
        mine, yours = (len(np.setdiff1d(x.index, y.index)) for x, y in ((a, b), (b, a)))
        raise UserError(
            f"{a.title} has verdicts of {mine} images that {b.title} has not, and {yours} the other way round; "
            "run the missing cells"
        )
    if not np.array_equal(a.label, b.label):
        raise UserError(f"{a.title} and {b.title} have other labels for the same indices; these are two data sets")
    (left, budget), (right, other) = a.judged_by, b.judged_by
    if left and right and left != right:
        raise UserError(
            f"{a.title} is judged by {left[0]} + {left[1]} draws and {b.title} by {right[0]} + {right[1]}; "
            "judge both by the same"
        )
    if budget != other:
        raise UserError(f"{a.title} was attacked with the {budget} budget and {b.title} with the {other} one")


def _same_data(one: Path, other: Path, settings: Sequence[tuple[Any, ...]]) -> None:
    """Refuse folders whose data sets share a name and nothing more.

    Raises:
        UserError: their revisions or index lists differ.
    """
    known = []
    for folder in (one, other):
        lines = [line for line, _ in stored(folder / "parts").values()]
        known.append({(x["dataset"], x["split"], x["indices"], *x["identity"]["data"][2:4]) for x in lines})
    for setting in settings:
        left, right = ({k for k in keys if k[:3] == setting[:3]} for keys in known)
        if left != right:
            raise UserError(f"{one} and {other} hold other versions of {' '.join(setting[:3])}; run one of them again")
