"""`purebench merge`: write one results folder of those of several machines."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import add_quiet
from defenses.utils.errors import UserError
from defenses.utils.text import clean, counted

_NAMED = 20  # shards, at most


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="results folders of one board, two or more"
    )
    sub.add_argument("--out", type=Path, required=True, help="the new results folder; absent or empty")
    add_quiet(sub, "no line on what was written")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if len(arguments.folders) < 2:
        raise UserError("there is nothing to merge; name two results folders or more")
    from bench.execution.merge.merge import merge_folders

    cells = merge_folders(arguments.folders, arguments.out, finish)
    if not arguments.quiet:
        shared = f", {cells.shared} of them in more than one" if cells.shared else ""
        more = f" and {len(cells.shards) - _NAMED} more" if len(cells.shards) > _NAMED else ""
        which = f" (run shard {', '.join(cells.shards[:_NAMED])}{more})" if cells.shards else ""
        missing = f"; {counted(cells.missing, 'cell')} of the board not run{which}" if cells.missing else ""
        folders = counted(len(arguments.folders), "folder")
        print(f"{counted(cells.stored, 'cell')} of {folders}{shared}{missing}: {clean(str(arguments.out))}")
    return 0


def finish(folder: Path) -> None:
    """Write the tables of a results folder, and the pages of audits where there are any."""
    from bench.report.files import current_table
    from bench.store.audits import read_audits

    current_table(folder)
    if read_audits(folder):
        from bench.audit.run import write_pages

        write_pages(folder)
