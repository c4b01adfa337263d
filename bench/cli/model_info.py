"""`purebench model-info`: write and read RobustBench's JSON of a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.cli.arguments import add_out, add_parameters, add_results, key_texts
from bench.report.model_info import FLAGS, read_model_info
from defenses.utils.errors import UserError
from defenses.utils.files import write_whole


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    kinds = sub.add_subparsers(required=True, metavar="WHAT")
    text = "Write the entry of a defense from a results folder."
    exporting = kinds.add_parser("export", help=text, description=text)
    exporting.set_defaults(run=_export)
    add_results(exporting)
    exporting.add_argument("--defense", required=True, help="its label in the results")
    exporting.add_argument("--eps", help="of the threat, where the results have several")
    add_out(exporting, "file to write (default: print it)")
    add_parameters(exporting, "as architecture=...")
    text = "Show an entry, and compare its claims with a results folder."
    more = " Both must be of one data set and one eps. The exit code is 1 if a claim lies outside its interval."
    showing = kinds.add_parser("show", help=text, description=text + more)
    showing.add_argument("file", type=Path, help="a JSON file of RobustBench's model_info")
    showing.add_argument("--results", type=Path, help="a results folder")
    showing.add_argument("--defense", help="label of the defense there")
    showing.add_argument("--eps", help="of the threat there, where the entry has none")


def run(arguments: argparse.Namespace) -> int:
    """Run `model-info show`."""
    info = read_model_info(arguments.file)
    if (arguments.results is None) != (arguments.defense is None):
        raise UserError("--results and --defense go together")
    for key, value in info.raw.items():
        print(f"{key}: {value}")
    if arguments.results is None:
        return 0
    from bench.report.model_info_compare import compare  # imports pandas

    claims = compare(info, arguments.results, arguments.defense, eps=arguments.eps)
    if not claims:
        raise UserError("the entry and the results have no number in common")
    for c in claims:
        word = "agrees" if c.agrees else "differs"
        interval = f"{c.measured:.2%} [{c.low:.2%}, {c.high:.2%}]"
        print(f"{c.key}: claimed {c.claimed:.2%}, measured {interval} ({c.attack}): {word}")
    return 0 if all(c.agrees for c in claims) else 1


def _export(arguments: argparse.Namespace) -> int:
    """Run `model-info export`."""
    from bench.report.model_info_export import export  # imports pandas

    info = export(arguments.results, arguments.defense, eps=arguments.eps, fields=_fields(arguments.set))
    if arguments.out is None:
        print(info.to_json(), end="")
    else:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.out, info.to_json(), "results are kept")
        print(arguments.out)
    return 0


def _fields(pairs: list[str]) -> dict[str, Any]:
    """Parse KEY=VALUE pairs; flags as booleans, all others as text."""
    values: dict[str, object] = {}
    for key, value in key_texts(pairs):
        values[key] = {"true": True, "false": False}.get(value, value) if key in FLAGS else value
    return values
