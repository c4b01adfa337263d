"""`purebench run`: run a board."""

from __future__ import annotations

import argparse

from bench.cli.board_options import (
    add_board,
    add_run_options,
    add_selection,
    results_folder,
    run_and_show,
    selected_board,
    selected_rows,
)


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_board(sub, preset=True)
    add_selection(sub)
    add_run_options(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    board = selected_board(arguments)
    return run_and_show(board, results_folder(arguments, board), arguments, *selected_rows(arguments))
