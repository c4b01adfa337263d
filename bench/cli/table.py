"""`purebench table`: print the table of a results folder."""

from __future__ import annotations

import argparse

from bench.cli.arguments import add_format, add_results
from bench.cli.terminal import width
from bench.report.files import check_results, table_for


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(sub)
    add_format(sub, "latex", "html")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    check_results(arguments.results)
    print(table_for(arguments.results, width(), arguments.format), end="")
    return 0
