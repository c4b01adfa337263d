"""`purebench poison`: run attacks on training data, with purifiers that clean it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.cli.arguments import add_format, add_out, add_quiet, add_roots, roots_of
from bench.cli.board_options import report_errors
from bench.cli.terminal import fitted, width


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("board", help="a TOML file, or the name of a built-in board, as digits-poisoning")
    add_out(sub, "results folder (default: results/<board>)")
    add_roots(sub)
    sub.add_argument("--retry-errors", action="store_true", help="run trials again that ended in an error")
    add_format(sub, "latex", "html")
    add_quiet(sub, "no progress, no table")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.tracks.poisoning.board import load_poison_board
    from bench.tracks.poisoning.run import run_poisoning
    from bench.tracks.poisoning.tables import load_poisoning, poisoning_table, write_poisoning_tables

    roots = roots_of(arguments)
    board = load_poison_board(arguments.board, **roots)
    folder: Path = arguments.out or Path("results") / board.name
    errors = run_poisoning(board, folder, retry_errors=arguments.retry_errors, quiet=arguments.quiet, **roots)
    texts = write_poisoning_tables(folder)
    if arguments.format == "text" and width():
        texts["text"] = fitted(poisoning_table(folder, load_poisoning(folder)))
    if not arguments.quiet:
        print(texts[arguments.format].rstrip("\n"))
        print(f"\nrecords and tables: {folder}", file=sys.stderr)
    return report_errors(errors)
