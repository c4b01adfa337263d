"""`purebench claims`: hold published claims against results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench.cli.arguments import add_results
from bench.cli.terminal import width
from bench.report.files import check_results
from defenses.utils.errors import UserError


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(sub, several=True)
    text = (
        "further claims: a TOML file or a folder of them; RobustBench's model_info, a JSON file or a folder of them, "
        "reported accuracy held against the best known one beside it (default: those that come with purebench alone)"
    )
    sub.add_argument("--claims", nargs="+", action="extend", default=[], type=Path, metavar="FILE", help=text)
    sub.add_argument("--json", action="store_true", help="as a list of JSON objects, every claim with its source")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    for folder in arguments.results:
        check_results(folder)
    import pandas as pd

    from bench.analysis.claim_files import read_claims
    from bench.analysis.claims import COLUMNS, REFUTED, claims_table
    from bench.cli.claims_text import claims_text
    from bench.report.model_info_claims import further_claims

    further, entries = further_claims(arguments.claims)
    if not arguments.results and not entries:
        raise UserError("name a results folder, or with --claims a JSON file of RobustBench's model_info")
    claims = [*read_claims(), *further]
    published = pd.DataFrame(entries, columns=list(COLUMNS))
    measured = claims_table(arguments.results, claims)
    frame = pd.concat([f for f in (measured, published) if len(f)] or [measured], ignore_index=True)
    if arguments.json:
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        print(json.dumps(rows, indent=1))
    else:
        print(claims_text(frame, width()), end="")
    return int((frame["verdict"] == REFUTED).any())
