"""`purebench table`: print the table of a results folder."""

from __future__ import annotations

import argparse

from bench.cli.arguments import add_format, add_results
from bench.cli.terminal import width
from bench.report.files import check_results, table_for

_STYLES = ("plain", "paper")


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(sub)
    add_format(sub, "latex", "html")
    sub.add_argument(
        "--columns", metavar="NAMES",
        help="these columns of the leaderboard, with commas between: rank, clean, clean-interval, worst, rob5, audit, "
        "certificate, attack, claim, verdict, evaluations, images, draws, paper",
    )  # fmt: skip
    sub.add_argument("--sort", help="order of the leaderboard: one of these columns, defense or board (default: worst)")
    sub.add_argument("--digits", type=int, help="of the leaderboard, after the point (default: 1)")
    sub.add_argument(
        "--style",
        choices=_STYLES,
        help="paper: the leaderboard as LaTeX for a paper, in one column where it fits (default: plain)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    check_results(arguments.results)
    chosen = {name: getattr(arguments, name) for name in ("columns", "sort", "digits", "style")}
    if any(value is not None for value in chosen.values()):
        print(_chosen(arguments, {name: value for name, value in chosen.items() if value is not None}), end="")
    else:
        print(table_for(arguments.results, width(), arguments.format), end="")
    return 0


def _chosen(arguments: argparse.Namespace, options: dict[str, str | int]) -> str:
    from bench.report.of_results import leaderboard_table

    style, columns = options.pop("style", "plain"), str(options.pop("columns", ""))
    form = "paper" if style == "paper" else arguments.format
    names = [name.strip() for name in columns.split(",") if name.strip()]
    return leaderboard_table(arguments.results, form, columns=names, **options)  # type: ignore[arg-type]
