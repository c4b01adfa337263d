"""`purebench verify`: judge stored images again, with today's code, weights and libraries."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.cli import arguments as shared
from bench.report.files import check_results
from defenses.utils.errors import UserError


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    shared.add_results(sub)
    shared.add_labels(sub, "--defense", "only these")
    sub.add_argument("--sample", type=shared.positive, metavar="N", help="at most N images of every cell")
    sub.add_argument("--code", type=Path, help="folder of your own defenses and parts (default: the current folder)")
    shared.add_device(sub)
    shared.add_roots(sub)
    sub.add_argument("--json", action="store_true", help="the findings as JSON")
    shared.add_quiet(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    check_results(arguments.results)
    if arguments.code is not None and not arguments.code.is_dir():
        raise UserError(f"there is no folder {arguments.code}; give --code the folder of your own defenses")
    from bench.audit.reproduction.report import as_dict, as_text
    from bench.audit.reproduction.verify import VerifyOptions, verify

    def progress(text: str) -> None:
        if not arguments.quiet:
            print(text, file=sys.stderr, flush=True)

    options = VerifyOptions(
        defenses=tuple(arguments.defense),
        sample=arguments.sample,
        code=arguments.code,
        device=arguments.device,
        **shared.roots_of(arguments),
    )
    verification = verify(arguments.results, options, progress)
    print(json.dumps(as_dict(verification), indent=1) if arguments.json else as_text(verification))
    return 0 if verification.agrees else 2
