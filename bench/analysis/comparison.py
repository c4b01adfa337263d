"""The comparison of two rows of a table, and its lines of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.stats.bootstrap import Interval
from bench.stats.paired import Paired
from bench.stats.proportions import wilson
from defenses.utils.names import portable
from defenses.utils.text import clean

if TYPE_CHECKING:
    from defenses.utils.arrays import F64, I64, Bools


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


@dataclass(frozen=True, eq=False, repr=False)
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
        confidence: of the intervals, in (0, 1).
        caveats: caveats of both sides, see `bench.analysis.caveats`.
    """

    a: Side
    b: Side
    planned: int
    difference: Interval
    how: str
    decisions: Paired | None
    both: int
    confidence: float = 0.95
    caveats: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return the comparison as the lines of `purebench compare`."""
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        level, n = f"{100 * self.confidence:g}%", self.difference.n
        planned = "" if n == self.planned else f" of {self.planned}: some have no verdict"
        lines = [
            clean(self.a.where),
            *(f"{name}: {_side(side, self.confidence)}" for name, side in (("A", self.a), ("B", self.b))),
            f"A - B: {_points(self.difference)} ({level}: {self.how})",
        ]
        if self.decisions is not None:
            d, several = self.decisions, max(self.a.draws, self.b.draws) > 1
            neither = n - self.both - int(d.only_a + d.only_b)
            noun = "majority decisions" if several else "verdicts"
            lines.append(
                f"{noun}: right of A alone {d.only_a:.0f}, of B alone {d.only_b:.0f}, of both {self.both}, "
                f"of neither {neither}; McNemar's exact p = {d.p_value:.3g}"
            )
        return [*lines, f"n = {n} images{planned}", *map(clean, self.caveats)]


def _side(side: Side, confidence: float) -> str:
    """Return a row's robust accuracy with its interval, in percent."""
    share = side.share(confidence)
    draws = f"{side.draws} held-out draws" if side.draws > 1 else "one verdict"
    return f"{clean(side.title)}: {100 * share.value:.2f}% [{100 * share.low:.2f}, {100 * share.high:.2f}], {draws}"


def _points(i: Interval) -> str:
    """Return a difference with its interval, in percentage points."""
    return f"{100 * i.value:+.2f} points [{100 * i.low:+.2f}, {100 * i.high:+.2f}]"
