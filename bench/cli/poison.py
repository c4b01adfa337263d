"""`purebench poison`: attacks on training data, and purifiers as their cleaning."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.cli.arguments import Declare


def add(declare: Declare) -> None:
    """Declare the command."""
    text = "Run a board of attacks on training data: poison, train, clean, and see what the trigger does."
    sub = declare("poison", _poison, text + " Finished trials are skipped.")
    sub.add_argument("board", help="a TOML file, or the name of one that comes along, as digits-poisoning")
    sub.add_argument("--out", type=Path, help="results folder (default: results/<board>)")
    sub.add_argument("--weights-root", type=Path, help="look here first for <dataset>/<name>.safetensors")
    sub.add_argument("--data-root", type=Path, help="where data sets lie (default: $PUREBENCH_DATA)")
    sub.add_argument("--retry-errors", action="store_true", help="run trials again that ended in an error")
    sub.add_argument("--format", choices=("text", "markdown", "csv", "latex", "html"), default="text")
    sub.add_argument("--quiet", action="store_true", help="no progress, no table")


def _poison(arguments: argparse.Namespace) -> int:
    from bench.tracks.poisoning.board import load_poison_board
    from bench.tracks.poisoning.run import run_poisoning
    from bench.tracks.poisoning.tables import write_poisoning_tables

    roots = {"weights_root": arguments.weights_root, "data_root": arguments.data_root}
    board = load_poison_board(arguments.board, **roots)
    folder: Path = arguments.out or Path("results") / board.name
    errors = run_poisoning(board, folder, retry_errors=arguments.retry_errors, quiet=arguments.quiet, **roots)
    texts = write_poisoning_tables(folder)
    if not arguments.quiet:
        print(texts[arguments.format].rstrip("\n"))
        print(f"\nrecords and tables: {folder}", file=sys.stderr)
    for line in errors:
        print(f"purebench: error on record: {line}", file=sys.stderr)
    return 2 if errors else 0
