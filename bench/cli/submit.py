"""`purebench submit`: pack a row for a leaderboard, check one without running it, add one to a board."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.cli.arguments import add_data_root, add_quiet, add_results, positive
from defenses.utils.text import clean, counted


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    kinds = sub.add_subparsers(required=True, metavar="WHAT")
    text = "Write the zip of a row: its results, card, board and code, with SHA-256 of each file."
    packing = kinds.add_parser("pack", help=text, description=text)
    packing.set_defaults(run=_pack)
    add_results(packing)
    packing.add_argument("--defense", required=True, help="its label in the results")
    packing.add_argument("--card", type=Path, help="its card, TOML (default: that of the registered defense)")
    packing.add_argument("--out", type=Path, required=True, help="the zip")
    packing.add_argument("--code", type=Path, help="folder of your own code (default: the current folder)")
    add_quiet(packing, "no line on what was written")
    text = "Check a zip, and print its row; no code of it runs without --rerun."
    codes = "Exit codes: 0 all checks pass; 1 a check fails; 2 no submission, a damaged zip, or --to names no board."
    checking = kinds.add_parser("check", help=text, description=f"{text} {codes}")
    checking.add_argument("zip", type=Path, help="a submission")
    _add_to(checking, "results folder of the board, which the row is held against", required=False)
    again = "judge at most N stored images of each cell again; this runs the code of the zip"
    checking.add_argument("--rerun", type=positive, metavar="N", help=again)
    add_data_root(checking)
    text = "Add a zip to the results folder of its board, after all checks; a failure leaves the folder as it was."
    adding = kinds.add_parser("add", help=text, description=text)
    adding.set_defaults(run=_add)
    adding.add_argument("zip", type=Path, help="a submission")
    _add_to(adding, "results folder of the board", required=True)
    add_quiet(adding, "no line on what was added")


def _add_to(sub: argparse.ArgumentParser, text: str, *, required: bool) -> None:
    sub.add_argument("--to", type=Path, required=required, metavar="RESULTS", help=text)


def run(arguments: argparse.Namespace) -> int:
    """Run `submit check`."""
    import tempfile

    from bench.submissions.check import examine
    from bench.submissions.standing import standing

    with tempfile.TemporaryDirectory() as folder:
        found, row = examine(arguments.zip, Path(folder), arguments.to, data_root=arguments.data_root)
        if arguments.rerun and found:
            print("not judged again: what the checks find comes first", file=sys.stderr)
        elif arguments.rerun and row is not None:
            from bench.submissions.rerun import announced, rerun_problems

            print(clean(announced(row, arguments.rerun)), file=sys.stderr, flush=True)
            found += rerun_problems(row, arguments.rerun, arguments.data_root)
        for finding in found:
            print(f"fails: {finding.check}: {clean(finding.text)}")
        for line in standing(row, found, arguments.to) if row is not None else ():
            print(clean(line))
    print(f"{counted(len(found), 'finding')}" if found else "all checks pass")
    return int(bool(found))


def _pack(arguments: argparse.Namespace) -> int:
    """Run `submit pack`."""
    from bench.submissions.pack import pack_row

    count = pack_row(arguments.results, arguments.defense, arguments.out, card=arguments.card, code=arguments.code)
    if not arguments.quiet:
        print(f"{counted(count, 'file')} of {clean(arguments.defense)} in {clean(str(arguments.out))}")
    return 0


def _add(arguments: argparse.Namespace) -> int:
    """Run `submit add`."""
    from bench.cli.merge import finish
    from bench.submissions.add import add_row

    label = add_row(arguments.zip, arguments.to, finish)
    if not arguments.quiet:
        print(f"{clean(label)} is on {clean(str(arguments.to))} now")
    return 0
