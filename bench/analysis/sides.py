"""The sides of a comparison: a row of results, or the worst case of a defense, as shares by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.analysis.records import CLEAN, NULL
from bench.analysis.results import Results
from bench.analysis.rows import SETTING, Group, Row, choose, grouped
from bench.analysis.scores import Scores, common
from bench.analysis.summary import WORST
from bench.stats.bootstrap import Interval
from bench.stats.proportions import wilson
from defenses.utils.errors import UserError, unknown
from defenses.utils.names import portable

if TYPE_CHECKING:
    from defenses.utils.arrays import F64, I64, Bools

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
        target = "" if targets == "none" else f", target {targets}"
        return f"{portable(dataset)} {split} ({indices}), {norm} {eps}{target}"

    def share(self, confidence: float) -> Interval:
        """Return the mean over images, with Wilson's interval as in the tables."""
        n, value = self.shares.shape[1], float(self.shares.mean())
        low, high = wilson(value * n, n, confidence)
        return Interval(value, float(low), float(high), n)


def sides_of(results: Results, name: str) -> Iterator[Side]:
    """Yield a row of the results in each setting that has it.

    Args:
        results: from `bench.analysis.results.read_results`.
        name: "DEFENSE[@ATTACK]", see `bench.analysis.compare.compare`.

    Raises:
        UserError: no setting has it.
    """
    defenses = list(dict.fromkeys(results.cells["defense"]))
    defense, attack = parsed(name, defenses)
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
        raise unknown(f"row of {defense}", attack or WORST, list(rows))


def worst_side(seeds: Sequence[Group]) -> Side | None:
    """Return the worst case of a defense in one setting; None if verdicts of a needed row are missing altogether.

    Args:
        seeds: the groups of its trainings, see `bench.analysis.rows.grouped`.
    """
    picked = [p for group in seeds if (p := _picked(group, "")) is not None and len(p[0])]
    if len(picked) < len(seeds) or not len(common([scores for scores, _ in picked])):
        return None
    return _side(str(seeds[0].rows[0].names["defense"]), "", picked)


def parsed(name: str, defenses: Sequence[str]) -> tuple[str, str]:
    """Return the defense and attack of "DEFENSE[@ATTACK]"; labels may contain "@" themselves.

    Raises:
        UserError: unknown defense.
    """
    if name in defenses:
        return name, ""
    for defense in sorted(defenses, key=len, reverse=True):
        if name.startswith(f"{defense}@"):
            attack = name.removeprefix(f"{defense}@")
            return defense, "" if attack == WORST else _ALIASES.get(attack, attack)
    error = unknown("defense", name.partition("@")[0], list(defenses))
    raise error if "@" in name else UserError(f"{error}; one attack on a defense is written as defense@attack")


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
        f"{first['defense']}, {(attack and str(rows[0])) or WORST}{seeds}",
        tuple(first[n] for n in SETTING),
        index,
        each[0].label,
        shares,
        None if len(picked) > 1 else decisions,
        draws,
        ((draws, int(each[0].draws_sel.max())) if stochastic else None, budget),
    )


def incomparable(a: Side, b: Side) -> str:
    """Return why two rows do not compare: other images, draws or budget; "" if they do."""
    if not np.array_equal(a.index, b.index):
        only_a, only_b = (len(np.setdiff1d(x.index, y.index)) for x, y in ((a, b), (b, a)))
        return (
            f"{a.title} has verdicts of {only_a} images that {b.title} has not, and {only_b} the other way round; "
            "run the missing cells"
        )
    if not np.array_equal(a.label, b.label):
        return f"{a.title} and {b.title} have other labels for the same indices; these are two data sets"
    (draws_a, budget_a), (draws_b, budget_b) = a.protocol, b.protocol
    if draws_a and draws_b and draws_a != draws_b:
        return (
            f"{a.title} is judged by {draws_a[0]} + {draws_a[1]} draws and {b.title} by {draws_b[0]} + {draws_b[1]}; "
            "judge both by the same"
        )
    if budget_a != budget_b:
        return f"{a.title} was attacked with the {budget_a} budget and {b.title} with the {budget_b} one"
    return ""
