"""`purebench status`: count the finished cells of a board or a results folder."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.cli.board_options import add_board, add_selection, read_stored, results_folder, selected_board, selected_rows
from bench.execution.options import Options
from bench.execution.resume import resumable
from bench.execution.sources import Sources
from bench.report.files import check_results
from bench.store.manifest import read_manifest
from defenses.utils.text import counted


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_board(sub, preset=True, folder=True)
    add_selection(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.board is not None and Path(arguments.board).is_dir():
        return _of_folder(Path(arguments.board))
    from bench.execution.run_board import select

    board = selected_board(arguments)
    folder = results_folder(arguments, board)
    defenses, attacks = selected_rows(arguments)
    cells = select(board.cells(), Options(defenses=defenses, attacks=attacks))
    lines, damaged = read_stored(folder, board.name, board.keys())
    found = resumable(cells, lines)
    _show([(c.key, c.defense.title) for c in cells], found.lines, damaged)
    for note in found.notes:
        print(note)
    done = sum(c.key in found.lines for c in cells)
    print(f"{done} of {len(cells)} cells finished in {folder}")
    return 0


def _of_folder(folder: Path) -> int:
    """Show the plan of a folder; own code is looked for in the current folder, as results name no folders."""
    check_results(folder)
    plan = [json.loads(line) for line in (folder / "plan.jsonl").read_text(encoding="utf-8").splitlines()]
    board = read_manifest(folder).get("board", folder.name)
    lines, damaged = read_stored(folder, board)
    sources = Sources()
    reasons = {key: reason for key, line in lines.items() if (reason := sources.reason_from_here(line))}
    lines = {key: line for key, line in lines.items() if not reasons.get(key, "").startswith("an earlier")}
    _show([(cell["key"], _title(cell)) for cell in plan], lines, damaged)
    planned = Counter(reasons[cell["key"]] for cell in plan if cell["key"] in reasons)
    for reason, n in sorted(planned.items()):
        print(f"{counted(n, 'cell')} finished for {reason}")
    print(
        f"{sum(cell['key'] in lines for cell in plan)} of {len(plan)} cells of the board {board} finished in {folder}"
    )
    return 0


def _title(cell: Mapping[str, Any]) -> str:
    seed = cell.get("training_seed")
    return f"{cell['defense']} (seed {seed})" if seed else str(cell["defense"])


def _show(cells: Iterable[tuple[str, str]], lines: Mapping[str, Mapping[str, Any]], damaged: Container[str]) -> None:
    """Print the number of cells, given as (key, title), by defense and state."""
    counts: dict[str, dict[str, int]] = {}
    for key, title in cells:
        by_state = counts.setdefault(title, {})
        state = lines[key]["status"] if key in lines else "damaged" if key in damaged else "missing"
        by_state[state] = by_state.get(state, 0) + 1
    for title, by_state in counts.items():
        print(f"{title}: " + ", ".join(f"{n} {state}" for state, n in sorted(by_state.items())))
