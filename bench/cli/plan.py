"""`purebench plan`: what a board would run, and what that would take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.arguments import Declare
from bench.cli.board_options import (
    board_arguments,
    board_of,
    folder_of,
    selection_arguments,
    stored_of,
    workers,
    workers_of,
)

if TYPE_CHECKING:
    from bench.board.board import Board
    from bench.execution.forecast.estimates import Forecast
    from bench.execution.options import Options
    from bench.spec.cell import Cell
    from bench.stats.power import Question

_SECONDS = 60.0  # that a probe takes, about


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare("plan", _plan, "Show what a board would run, and what that would take.")
    board_arguments(sub, preset=True)
    selection_arguments(sub)
    sub.add_argument("--probe", action="store_true", help="time what has no results yet, in about a minute")
    sub.add_argument("--workers", type=workers, default=1, help='forecast for so many processes, or "auto"')
    sub.add_argument("--detect", metavar="DIFFERENCE", help="how many images and draws show it, as 3pp, 3%% or .03")
    sub.add_argument("--power", type=float, default=0.8, help="chance to find that difference (default: 0.8)")
    sub.add_argument("--alpha", type=float, default=0.05, help="chance to find one that is none (default: 0.05)")
    sub.add_argument("--discordance", type=float, default=0.1, help="images that two defenses differ on (default: 0.1)")
    sub.add_argument("--device", default="cpu", help="where models run in the probe, as cuda:0 (default: cpu)")


def _plan(arguments: argparse.Namespace) -> int:
    from bench.execution.cell_runner import CellRunner
    from bench.execution.forecast.estimates import hindsight, measured, read_forecast
    from bench.execution.options import Options
    from bench.execution.run_board import select
    from bench.spec.cell import row_of
    from bench.store.manifest import read_manifest

    question = _question(arguments)
    board = board_of(arguments)
    options = Options(
        data_root=arguments.data_root,
        weights_root=arguments.weights_root,
        device=arguments.device,
        defenses=tuple(arguments.defense),
        attacks=tuple(arguments.attack),
    )
    cells = board.cells()
    chosen, folder = select(cells, options), folder_of(arguments, board.name)
    CellRunner(board, options).try_parameters(chosen)
    lines, _ = stored_of(folder, board)
    rows: dict[str, list[Cell]] = {}
    for cell in chosen:
        rows.setdefault(row_of(cell), []).append(cell)
    known = read_forecast(folder) | measured(cells, lines)
    if arguments.probe:
        known |= _probed(board, options, folder, rows, known)
    for row, members in rows.items():
        _show(row, members, lines, known.get(row))
    images = sum(c.data.stop - c.data.start for c in chosen)
    print(f"{len(chosen)} cells of up to {board.block} images, {images} adversarial images; results in {folder}")
    _forecast(rows, lines, known, workers_of(arguments, board))
    if (text := hindsight(read_manifest(folder), cells, lines)) is not None:
        print(text)
    if question is not None:
        from bench.analysis.sample_size import advice

        print("\n".join(advice(board, question, folder)))
    return 0


def _question(arguments: argparse.Namespace) -> Question | None:
    """What --detect asks; nothing without it."""
    from bench.stats.power import Question, difference

    if arguments.detect is None:
        return None
    question = Question(difference(arguments.detect), arguments.power, arguments.alpha, arguments.discordance)
    question.check_size()
    return question


def _probed(
    board: Board, options: Options, folder: Path, rows: Mapping[str, list[Cell]], known: Mapping[str, Forecast]
) -> dict[str, Forecast]:
    """A forecast of the rows that have no results, which is put into the results folder too."""
    import torch

    from bench.execution.cell_runner import CellRunner
    from bench.execution.forecast.estimates import read_forecast, write_forecast
    from bench.execution.forecast.probe import probe
    from defenses.utils.files import make_folder, no_empty_folder

    unknown = {row: cells[0] for row, cells in rows.items() if row not in known or known[row].source != "results"}
    torch.set_num_threads(board.threads)

    def report(number: int, count: int, row: str) -> None:
        print(f"probe [{number}/{count}] {row}", file=sys.stderr, flush=True)

    if not unknown:
        return {}
    with no_empty_folder(folder):
        make_folder(folder)
        found = probe(CellRunner(board, options), unknown, budget=_SECONDS, report=report)
        if found:
            write_forecast(folder, read_forecast(folder) | found)
    return found


def _show(row: str, cells: list[Cell], lines: Mapping[str, Any], forecast: Forecast | None) -> None:
    from defenses.utils.text import counted, human_time

    total, done = len(cells), sum(c.key in lines for c in cells)
    seeds = len({c.defense.training_seed for c in cells} - {None})
    blocks = counted(total // max(1, seeds), "block")
    what = f"{counted(seeds, 'seed')} x {blocks}" if seeds else blocks
    text = f"{row} | {what}{f', {done} finished' if done else ''}"
    if forecast is not None:
        most = "at least " if forecast.source == "at least" else ""
        source = "" if forecast.source == "at least" else f", by {forecast.source}"
        text += f" | {most}{human_time(forecast.seconds)} and {forecast.evaluations:,.0f} evaluations a block{source}"
    print(text)


def _forecast(
    rows: Mapping[str, list[Cell]], lines: Mapping[str, Any], known: Mapping[str, Forecast], workers: int
) -> None:
    """Totals of what is not finished: per defense, and of all."""
    from bench.execution.forecast.estimates import SAMPLE, makespan
    from defenses.utils.text import counted, human_time

    left = {row: [c for c in cells if c.key not in lines] for row, cells in rows.items()}
    told = {row: cells for row, cells in left.items() if cells and row in known}
    untold = sum(bool(cells) for cells in left.values()) - len(told)
    if not told:
        if untold and not known:
            print("no forecast yet: add --probe")
        return
    by_defense: dict[str, float] = {}
    seconds, evaluations = [], 0.0
    for row, cells in told.items():
        forecast = known[row]
        seconds += [forecast.seconds] * len(cells)
        evaluations += forecast.evaluations * len(cells)
        label = cells[0].defense.label
        by_defense[label] = by_defense.get(label, 0.0) + forecast.seconds * len(cells)
    for label, total in by_defense.items():
        print(f"forecast for {label}: {human_time(total)}")
    notes = [f"{counted(untold, 'row')} unknown"] if untold else []
    if any(known[row].source == "at least" for row in told):
        notes.append("some rows at least")
    if any(known[row].source == "probe" for row in told):
        notes.append("probed rows rather too much: attacks break more images than a probe, and leave them")
    if any(known[row].source == SAMPLE for row in told):
        notes.append(f"rows by {SAMPLE}: their mean, and no bound")
    most = f" ({'; '.join(notes)})" if notes else ""
    several = f", {human_time(makespan(seconds, workers))} with {workers} workers" if workers > 1 else ""
    print(f"forecast: {human_time(sum(seconds))}{several}, {evaluations:,.0f} evaluations{most}")
