"""`purebench status`: count the finished cells of a board or a results folder."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from bench.cli.arguments import refuse_with
from bench.cli.board_options import (
    add_board,
    add_selection,
    read_stored,
    results_folder,
    selected_board,
    selected_rows,
    shard_of,
)
from bench.cli.planned import PlannedCell, of_cells, of_folder
from bench.execution.options import Options
from bench.execution.resume import resumable
from bench.execution.sources import Sources
from bench.spec.cell import Cell
from bench.store.manifest import read_manifest, shards_of
from bench.store.parts import CellRecord
from defenses.utils.errors import UserError
from defenses.utils.text import counted


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_board(sub, preset=True, folder=True)
    add_selection(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.board is not None and Path(arguments.board).is_dir():
        refuse_with("results folder", arguments, "compute")
        return _of_folder(arguments)
    from bench.execution.run_board import select

    board = selected_board(arguments)
    folder = results_folder(arguments, board)
    defenses, attacks = selected_rows(arguments)
    shard = shard_of(arguments)
    cells = select(board.cells(), Options(defenses=defenses, attacks=attacks, shard=shard))
    lines, damaged = read_stored(folder, board.name, board.keys())
    found = resumable(cells, lines)
    _show(of_cells(cells), found.lines, damaged)
    for note in found.notes:
        print(note)
    of_shard = "" if shard is None else f" of shard {shard}"
    print(f"{_finished(cells, found.lines, of_shard)} in {folder}")
    return 0


def _of_folder(arguments: argparse.Namespace) -> int:
    """Show the plan of a folder; own code is looked for in the current folder, as results name no folders."""
    if arguments.shard is not None:
        raise UserError(f"--shard needs the board of {arguments.board}; name its file or the board, as quickstart")
    folder, sources = Path(arguments.board), Sources()
    plan, board = of_folder(folder, arguments.defense, arguments.attack)
    lines, damaged = read_stored(folder, board)
    reasons = {key: sources.reason_from_here(line) for key, line in lines.items()}
    lines = {key: line for key, line in lines.items() if not reasons[key][1]}
    _show(plan, lines, damaged)
    for reason, n in sorted(Counter(reasons[c.key][0] for c in plan if c.key in reasons).items()):
        if reason:
            print(f"{counted(n, 'cell')} finished for {reason}")
    shards = shards_of(read_manifest(folder).get("runs", []))
    parts = f" (shard {', '.join(shards)})" if shards else ""
    print(f"{_finished(plan, lines, f' of the board {board}')} in {folder}{parts}")
    return 0


def _finished(cells: Sequence[Cell | PlannedCell], lines: Mapping[str, CellRecord], of: str) -> str:
    """Return how many cells are finished, and how many of these are errors."""
    states = Counter(lines[c.key]["status"] for c in cells if c.key in lines)
    errors = f", {counted(states['error'], 'error')} among them," if states["error"] else ""
    return f"{states.total()} of {len(cells)} cells{of} finished{errors}"


def _show(cells: Iterable[PlannedCell], lines: Mapping[str, CellRecord], damaged: Container[str]) -> None:
    """Print the number of cells by defense and state."""
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        by_state = counts.setdefault(cell.title, {})
        state = lines[cell.key]["status"] if cell.key in lines else "damaged" if cell.key in damaged else "missing"
        by_state[state] = by_state.get(state, 0) + 1
    for title, by_state in counts.items():
        print(f"{title}: " + ", ".join(f"{n} {state}" for state, n in sorted(by_state.items())))
