"""`purebench run` and `purebench status`."""

from __future__ import annotations

import argparse

from bench.cli.arguments import Declare
from bench.cli.board_options import (
    board_arguments,
    board_of,
    folder_of,
    run_and_show,
    run_arguments,
    selection_arguments,
    stored_of,
)


def add(declare: Declare) -> None:
    """Declare the commands."""
    run = declare("run", _run, "Run a board: attack, judge, write records and tables. Finished cells are skipped.")
    board_arguments(run, preset=True)
    selection_arguments(run)
    run_arguments(run)
    board_arguments(declare("status", _status, "Show what of a board is finished."))


def _run(arguments: argparse.Namespace) -> int:
    board = board_of(arguments)
    chosen = tuple(arguments.defense), tuple(arguments.attack)
    return run_and_show(board, folder_of(arguments, board.name), arguments, *chosen)


def _status(arguments: argparse.Namespace) -> int:
    board = board_of(arguments)
    folder = folder_of(arguments, board.name)
    cells = board.cells()
    stored, damaged = stored_of(folder, board)
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        row = counts.setdefault(cell.defense.title, {})
        line = stored.get(cell.key)
        state = line["status"] if line else "damaged" if cell.key in damaged else "missing"
        row[state] = row.get(state, 0) + 1
    for label, row in counts.items():
        print(f"{label}: " + ", ".join(f"{n} {state}" for state, n in sorted(row.items())))
    done = sum(c.key in stored for c in cells)
    print(f"{done} of {len(cells)} cells finished in {folder}")
    return 0
