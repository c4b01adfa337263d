"""`purebench report`: write the reproducibility report on a results folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import add_labels, add_out, add_quiet, add_results
from defenses.utils.errors import UserError

_FORMATS = ("md", "html", "pdf", "json")
_CHECKLISTS = ("carlini2019", "neurips")


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(sub)
    add_labels(sub, "--defense", "only these (default: all)")
    sub.add_argument("--format", choices=_FORMATS, help="default: by the ending of --out, else md")
    sub.add_argument(
        "--checklist", nargs="+", choices=_CHECKLISTS, default=[], help="which checklists data answer (default: both)"
    )
    sub.add_argument(
        "--audits", nargs="+", action="extend", default=[], type=Path, metavar="FOLDER",
        help="further results folders, whose audits count for defenses of the same fingerprint",
    )  # fmt: skip
    add_out(sub, "the file, in an existing folder (default: report.<format>)")
    sub.add_argument("--crate", action="store_true", help="also write ro-crate-metadata.json beside it")
    add_quiet(sub, "no line on what was written")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.report.crate import FILE
    from bench.report.document.pdf import check_typst
    from bench.reproducibility.build import build_report
    from bench.reproducibility.report import checked
    from bench.store.folder import disk_errors, write_atomic
    from defenses.utils.text import clean

    out = checked(_path(arguments))
    if out.suffix.lower() == ".pdf":
        check_typst()
    lists = {"checklists": arguments.checklist} if arguments.checklist else {}
    report = build_report(arguments.results, defenses=arguments.defense, audits=arguments.audits, **lists)
    content = report.write(out.suffix[1:].lower())
    files = {out: content}
    if arguments.crate:
        files[out.parent / FILE] = report.crate(out.parent, {out.name: content}).encode()
    with disk_errors(out.parent):
        for path, data in files.items():
            write_atomic(path, data)
    if not arguments.quiet:
        print(clean(f"{' and '.join(map(str, files))} written"))
    return 0


def _path(arguments: argparse.Namespace) -> Path:
    """Return the file that is written, whose ending is its format.

    Raises:
        UserError: the ending is of another format.
    """
    path: Path = arguments.out or Path(f"report.{arguments.format or 'md'}")
    if arguments.format and path.suffix.lower() != f".{arguments.format}":
        raise UserError(f"--format is {arguments.format}, and {path} ends in another way; leave one of them out")
    return path
