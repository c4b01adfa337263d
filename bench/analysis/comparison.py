"""The comparison of two rows of a table, and its lines of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.analysis.sides import Side
from bench.stats.bootstrap import Interval
from bench.stats.paired import Paired
from defenses.utils.text import clean

if TYPE_CHECKING:
    pass


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
