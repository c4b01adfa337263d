"""`purebench export`: write results as Parquet or CSV, for DuckDB, R or polars."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import add_out, add_quiet, add_results


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(sub)
    add_out(sub, "folder of the files (default: export)")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--parquet", action="store_true", help="as Parquet (default)")
    form.add_argument("--csv", action="store_true", help="as CSV")
    sub.add_argument(
        "--only", nargs="+", default=[], metavar="FRAME",
        help="results, draws, cells, worst_per_image, summary, leaderboard (default: all but the draws)",
    )  # fmt: skip
    add_quiet(sub, "no line on what was written")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.report.export import export
    from defenses.utils.text import clean

    out = arguments.out or Path("export")
    files = export(arguments.results, out, form="csv" if arguments.csv else "parquet", only=arguments.only)
    if not arguments.quiet:
        print(f"{', '.join(file.name for file in files)} in {clean(str(out))}")
    return 0
