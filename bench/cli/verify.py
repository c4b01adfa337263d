"""`purebench verify`: the stored images of a results folder, judged again with today's code, weights and libraries."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import Declare, positive
from defenses.utils.errors import UserError


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare("verify", _verify, "Judge the stored images of a results folder again, and say what has changed.")
    sub.add_argument("results", type=Path)
    sub.add_argument("--defense", nargs="+", action="extend", default=[], help="only these")
    sub.add_argument("--sample", type=positive, metavar="N", help="at most N images of every cell")
    sub.add_argument("--code", type=Path, help="where your own defenses and parts lie (default: the current folder)")
    sub.add_argument("--device", default="cpu", help="where models run, as cuda:0 (default: cpu)")
    sub.add_argument("--weights-root", type=Path, help="look here first for <dataset>/<name>.safetensors")
    sub.add_argument("--data-root", type=Path, help="where data sets lie (default: $PUREBENCH_DATA)")
    sub.add_argument("--json", action="store_true", help="the findings as JSON")
    sub.add_argument("--quiet", action="store_true", help="no progress")


def _verify(arguments: argparse.Namespace) -> int:
    import json
    import sys

    from bench.audit.reproduction.report import as_dict, as_text
    from bench.audit.reproduction.verify import VerifyOptions, verify

    if not (arguments.results / "plan.jsonl").is_file():
        raise UserError(f"{arguments.results} is no results folder (it has no plan.jsonl); run a board first")

    def progress(text: str) -> None:
        if not arguments.quiet:
            print(text, file=sys.stderr, flush=True)

    found = verify(
        arguments.results,
        VerifyOptions(
            defenses=tuple(arguments.defense),
            sample=arguments.sample,
            code=arguments.code,
            device=arguments.device,
            weights_root=arguments.weights_root,
            data_root=arguments.data_root,
        ),
        progress,
    )
    print(json.dumps(as_dict(found), indent=1) if arguments.json else as_text(found))
    return 0 if found.agrees else 2
