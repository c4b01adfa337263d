"""`purebench diff`: compare two runs of a board."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench.cli.terminal import width


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("old", type=Path, metavar="OLD", help="results folder of the old run")
    sub.add_argument("new", type=Path, metavar="NEW", help="results folder of the new one")
    sub.add_argument("--json", action="store_true", help="as JSON, with every image that differs")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.analysis.diff.difference import diff_runs
    from bench.report.diff import as_dict, as_text

    difference = diff_runs(arguments.old, arguments.new)
    if arguments.json:
        print(json.dumps(as_dict(difference), indent=1, allow_nan=False))
    else:
        print(as_text(difference, width()), end="")
    return int(difference.differs)
