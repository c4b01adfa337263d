"""`purebench run`, `plan` and `status`: what is done with a board."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.commands import Declare, positive

if TYPE_CHECKING:
    from bench.board import Board


def add(declare: Declare) -> None:
    """Declare the commands."""
    for name, function, text in (
        ("run", _run, "Run a board: attack, judge, write records and tables. Finished cells are skipped."),
        ("plan", _plan, "Show what a board would run."),
        ("status", _status, "Show what of a board is finished."),
    ):
        sub = declare(name, function, text)
        sub.add_argument("board", help="a TOML file, or the name of a board that comes along, as quickstart")
        sub.add_argument("--out", type=Path, help="results folder (default: results/<board>)")
        sub.add_argument("--weights-root", type=Path, help="look here first for <dataset>/<name>.safetensors")
        sub.add_argument("--data-root", type=Path, help="where data sets lie (default: $PUREBENCH_DATA)")
        if name != "status":
            sub.add_argument("--defense", nargs="+", action="extend", default=[], help="only these")
            sub.add_argument("--attack", nargs="+", action="extend", default=[], help="only these and the null attacks")
        if name == "run":
            _run_arguments(sub)


def _run_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--workers", type=positive, default=1, help="processes (default: 1)")
    sub.add_argument("--device", default="cpu", help="where models run, as cuda:0 (default: cpu)")
    sub.add_argument("--retry-errors", action="store_true", help="run cells again that ended in an error")
    sub.add_argument("--quiet", action="store_true", help="no progress, no table")


def _board(arguments: argparse.Namespace) -> Board:
    from bench.board import load_board

    return load_board(arguments.board, weights_root=arguments.weights_root, data_root=arguments.data_root)


def _folder(arguments: argparse.Namespace, name: str) -> Path:
    given: Path | None = arguments.out
    return given or Path("results") / name


def _run(arguments: argparse.Namespace) -> int:
    from bench.run import Options, run_board
    from bench.workers import WorkerFailed
    from bench.write import current_table

    board = _board(arguments)
    folder = _folder(arguments, board.name)
    options = Options(
        data_root=arguments.data_root,
        weights_root=arguments.weights_root,
        workers=arguments.workers,
        device=arguments.device,
        defenses=tuple(arguments.defense),
        attacks=tuple(arguments.attack),
        retry_errors=arguments.retry_errors,
        quiet=arguments.quiet,
    )
    try:
        errors = run_board(board, folder, options)
    except WorkerFailed as error:
        print(f"purebench: {error}", file=sys.stderr)
        return 1
    table = current_table(folder)
    if not arguments.quiet:
        print(table.rstrip("\n"))
        print(f"\nrecords, draws and tables: {folder}", file=sys.stderr)
    for line in errors:
        print(f"purebench: error on record: {line}", file=sys.stderr)
    return 2 if errors else 0


def _plan(arguments: argparse.Namespace) -> int:
    from bench.run import Options, select

    board = _board(arguments)
    cells = board.cells()
    chosen = select(cells, Options(defenses=tuple(arguments.defense), attacks=tuple(arguments.attack)))
    folder = _folder(arguments, board.name)
    stored = _stored(folder)
    pairs: dict[str, list[int]] = {}
    for cell in chosen:
        name = f"{cell.threat} | {cell.defense.label} | {cell.attack.label} | "
        name += cell.view_label
        done, total = pairs.setdefault(name, [0, 0])
        pairs[name] = [done + (cell.key in stored), total + 1]
    for name, (done, total) in pairs.items():
        print(f"{name} | {total} block{'s' if total > 1 else ''}{f', {done} finished' if done else ''}")
    images = sum(c.data.stop - c.data.start for c in chosen)
    print(f"{len(chosen)} cells of up to {board.block} images, {images} adversarial images; results in {folder}")
    return 0


def _stored(folder: Path) -> dict[str, str]:
    """Status by key of what a folder holds; damaged parts, which a run does again, left out."""
    from bench.parts import stored

    return {key: line["status"] for key, (line, _) in stored(folder / "parts").items()}


def _status(arguments: argparse.Namespace) -> int:
    board = _board(arguments)
    folder = _folder(arguments, board.name)
    stored, cells = _stored(folder), board.cells()
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        row = counts.setdefault(cell.defense.label, {})
        state = stored.get(cell.key, "missing")
        row[state] = row.get(state, 0) + 1
    for label, row in counts.items():
        print(f"{label}: " + ", ".join(f"{n} {state}" for state, n in sorted(row.items())))
    done = sum(c.key in stored for c in cells)
    print(f"{done} of {len(cells)} cells finished in {folder}")
    return 0
