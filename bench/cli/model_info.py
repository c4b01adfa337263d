"""`purebench model-info`: RobustBench's JSON of a model, out and in."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.cli.arguments import Declare
from defenses.utils.errors import UserError


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare("model-info", _show, "Write or read RobustBench's model_info JSON.")
    kinds = sub.add_subparsers(required=True, metavar="WHAT")
    text = "Write the entry of a defense from a results folder."
    export = kinds.add_parser("export", help=text, description=text)
    export.set_defaults(command=_export)
    export.add_argument("results", type=Path)
    export.add_argument("--defense", required=True, help="its label in the results")
    export.add_argument("--eps", help="of the threat, where the results have several")
    export.add_argument("--out", type=Path, help="file to write (default: print it)")
    export.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="as architecture=..."
    )
    text = "Show an entry, and hold its claims against a results folder."
    more = " Both must be of one data set and one eps. The exit code is 1 if a claim lies outside its interval."
    show = kinds.add_parser("show", help=text, description=text + more)
    show.set_defaults(command=_show)
    show.add_argument("file", type=Path)
    show.add_argument("--results", type=Path, help="a results folder")
    show.add_argument("--defense", help="label of the defense there")
    show.add_argument("--eps", help="of the threat there, where the entry has none")


def _export(arguments: argparse.Namespace) -> int:
    from bench.report.model_info_export import export

    info = export(arguments.results, arguments.defense, eps=arguments.eps, given=_given(arguments.set))
    if arguments.out is None:
        print(info.to_json(), end="")
    else:
        from defenses.utils.files import write_whole

        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.out, info.to_json(), "results are kept")
        print(arguments.out)
    return 0


def _given(pairs: list[str]) -> dict[str, Any]:
    from bench.report.model_info import FLAGS

    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f'"{pair}" is not KEY=VALUE')
        if key in FLAGS and value not in ("true", "false"):
            raise UserError(f"{key} is {value}; write true or false")
        values[key] = value == "true" if key in FLAGS else value
    return values


def _show(arguments: argparse.Namespace) -> int:
    from bench.report.model_info import read_model_info
    from bench.report.model_info_compare import compare

    info = read_model_info(arguments.file)
    if (arguments.results is None) != (arguments.defense is None):
        raise UserError("--results and --defense go together")
    for key, value in info.raw.items():
        print(f"{key}: {value}")
    if arguments.results is not None:
        found = compare(info, arguments.results, arguments.defense, eps=arguments.eps)
        if not found:
            raise UserError("the entry and the results have no number in common")
        for c in found:
            word = "agrees" if c.agrees else "differs"
            interval = f"{c.measured:.2%} [{c.low:.2%}, {c.high:.2%}]"
            print(f"{c.key}: claimed {c.claimed:.2%}, measured {interval} ({c.attack}): {word}")
        return 0 if all(c.agrees for c in found) else 1
    return 0
