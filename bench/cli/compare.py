"""`purebench compare`: compare two rows of a table, image by image."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import add_results, check_seed, number_between, positive
from bench.cli.terminal import fitted_lines


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
        print("\n" * (number > 0) + fitted_lines(repr(comparison)))
    return 0
