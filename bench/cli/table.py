"""`purebench table`: the table of a results folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import Declare
from defenses.utils.errors import UserError


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare("table", _table, "Print the table of a results folder.")
    sub.add_argument("results", type=Path)
    sub.add_argument("--format", choices=("text", "markdown", "csv", "latex", "html"), default="text")


def _table(arguments: argparse.Namespace) -> int:
    from bench.report.files import current_table

    if not (arguments.results / "plan.jsonl").is_file():
        raise UserError(f"{arguments.results} is no results folder (it has no plan.jsonl); run a board first")
    print(current_table(arguments.results, arguments.format), end="")
    return 0
