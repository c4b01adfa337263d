"""`purebench status`: count the finished cells of a board."""

from __future__ import annotations

import argparse

from bench.cli.board_options import add_board, read_stored, results_folder, selected_board
from bench.execution.resume import resumable


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_board(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    board = selected_board(arguments)
    folder = results_folder(arguments, board.name)
    cells = board.cells()
    lines, damaged = read_stored(folder, board)
    found = resumable(cells, lines)
    stored = found.lines
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        by_state = counts.setdefault(cell.defense.title, {})
        line = stored.get(cell.key)
        state = line["status"] if line else "damaged" if cell.key in damaged else "missing"
        by_state[state] = by_state.get(state, 0) + 1
    for label, by_state in counts.items():
        print(f"{label}: " + ", ".join(f"{n} {state}" for state, n in sorted(by_state.items())))
    for note in found.notes:
        print(note)
    done = sum(c.key in stored for c in cells)
    print(f"{done} of {len(cells)} cells finished in {folder}")
    return 0
