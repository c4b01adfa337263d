"""`purebench compare`: compare two rows of a table, image by image."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import add_results, check_seed, number_between, positive
from defenses.utils.text import clean

if TYPE_CHECKING:
    from bench.analysis.compare import Comparison
    from bench.analysis.sides import Side
    from bench.stats.bootstrap import Interval


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(sub)
    sub.add_argument("a", metavar="A", help='a defense (its worst case), or "defense@attack", "defense@attack (view)"')
    sub.add_argument("b", metavar="B", help="the other one")
    sub.add_argument("--with", dest="other", type=Path, metavar="RESULTS", help="the results folder of B, if another")
    sub.add_argument("--confidence", type=_share, default=0.95, help="of the intervals (default: 0.95)")
    sub.add_argument("--seed", type=int, default=0, help="of the bootstrap over several trainings (default: 0)")
    sub.add_argument("--resamples", type=positive, default=10_000, help="of that bootstrap (default: 10000)")


def _share(text: str) -> float:
    """Parse a number between 0 and 1."""
    return number_between(text, 0, 1, "does not lie between 0 and 1")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.analysis.compare import compare

    comparisons = compare(
        arguments.results,
        arguments.a,
        arguments.b,
        other=arguments.other,
        confidence=arguments.confidence,
        seed=check_seed(arguments.seed),
        resamples=arguments.resamples,
    )
    for number, comparison in enumerate(comparisons):
        print("\n" * (number > 0) + "\n".join(_lines(comparison, arguments.confidence)))
    return 0


def _lines(c: Comparison, confidence: float) -> list[str]:
    """Return the lines of a comparison."""
    level = f"{100 * confidence:g}%"
    n = c.difference.n
    planned = "" if n == c.planned else f" of {c.planned}: some have no verdict"
    lines = [
        clean(c.a.where),
        *(f"{name}: {_side(side, confidence)}" for name, side in (("A", c.a), ("B", c.b))),
        f"A - B: {_points(c.difference)} ({level}: {c.how})",
    ]
    if c.decisions is not None:
        d, several = c.decisions, max(c.a.draws, c.b.draws) > 1
        neither = n - c.both - int(d.only_a + d.only_b)
        noun = "majority decisions" if several else "verdicts"
        lines.append(
            f"{noun}: right of A alone {d.only_a:.0f}, of B alone {d.only_b:.0f}, of both {c.both}, "
            f"of neither {neither}; McNemar's exact p = {d.p_value:.3g}"
        )
    return [*lines, f"n = {n} images{planned}", *map(clean, c.caveats)]


def _side(side: Side, confidence: float) -> str:
    """Return a row's robust accuracy with its interval, in percent."""
    share = side.share(confidence)
    draws = f"{side.draws} held-out draws" if side.draws > 1 else "one verdict"
    return f"{clean(side.title)}: {100 * share.value:.2f}% [{100 * share.low:.2f}, {100 * share.high:.2f}], {draws}"


def _points(i: Interval) -> str:
    """Return a difference with its interval, in percentage points."""
    return f"{100 * i.value:+.2f} points [{100 * i.low:+.2f}, {100 * i.high:+.2f}]"
