"""`purebench plan`: show what a board would run, and what that would take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.attacks.catalogue import of_other_norms
from bench.cli.arguments import add_device
from bench.cli.board_options import (
    add_board,
    add_selection,
    read_stored,
    results_folder,
    selected_board,
    selected_rows,
    worker_count,
    workers,
)
from bench.execution.forecast.estimates import SAMPLE, hindsight, makespan, measured, read_forecast, write_forecast
from bench.execution.options import Options
from bench.execution.resume import resumable
from bench.spec.cell import row_of
from bench.store.manifest import read_manifest
from defenses.utils.errors import UserError
from defenses.utils.files import make_folder, no_empty_folder
from defenses.utils.text import counted, human_time

if TYPE_CHECKING:
    from bench.board.board import Board
    from bench.execution.forecast.estimates import Forecast
    from bench.spec.cell import Cell
    from bench.stats.power import Question

_PROBE_SECONDS = 60.0
_QUESTION = {"power": 0.8, "alpha": 0.05, "discordance": 0.1}  # defaults of the options beside --detect


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_board(sub, preset=True)
    add_selection(sub)
    sub.add_argument("--probe", action="store_true", help="time the rows without results, in about a minute")
    sub.add_argument("--workers", type=workers, default=1, help='forecast for so many processes, or "auto"')
    sub.add_argument("--detect", metavar="DIFFERENCE", help="how many images and draws show it, as 3pp, 3%% or .03")
    sub.add_argument(
        "--power", type=float, default=_QUESTION["power"], help="chance to find that difference (default: 0.8)"
    )
    sub.add_argument(
        "--alpha", type=float, default=_QUESTION["alpha"], help="chance to find one that is none (default: 0.05)"
    )
    sub.add_argument(
        "--discordance",
        type=float,
        default=_QUESTION["discordance"],
        help="images that two defenses differ on (default: 0.1)",
    )
    add_device(sub, "where models run in the probe, as cuda:0 (default: cpu)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.execution.cell_runner import CellRunner
    from bench.execution.run_board import select

    question = _question(arguments)
    board = selected_board(arguments)
    defenses, attacks = selected_rows(arguments)
    options = Options(
        data_root=arguments.data_root,
        weights_root=arguments.weights_root,
        device=arguments.device,
        defenses=defenses,
        attacks=attacks,
    )
    cells = board.cells()
    selection, folder = select(cells, options), results_folder(arguments, board)
    CellRunner(board.images, options).try_parameters(selection)
    found = resumable(cells, read_stored(folder, board.name, board.keys())[0])
    lines = found.lines
    rows: dict[str, list[Cell]] = {}
    for cell in selection:
        rows.setdefault(row_of(cell), []).append(cell)
    refused = _refused(rows)
    able = {row: members for row, members in rows.items() if row not in refused}
    forecasts = read_forecast(folder) | measured(cells, lines)
    if arguments.probe:
        forecasts |= _probe(board, options, folder, able, forecasts)
    for row, members in rows.items():
        _show(row, members, lines, forecasts.get(row), refused.get(row, ""))
    sizes = [c.data.stop - c.data.start for c in selection]
    for note in found.notes:
        print(note)
    count = f"{len(selection)} cells of up to {max(sizes, default=0)} images"
    print(f"{count}, {sum(sizes)} adversarial images; results in {folder}")
    _show_totals(able, lines, forecasts, worker_count(arguments, board))
    if (text := hindsight(read_manifest(folder), cells, lines)) is not None:
        print(text)
    if question is not None:
        from bench.analysis.sample_size import advice

        print("\n".join(advice(board, question, folder)))
    return 0


def _question(arguments: argparse.Namespace) -> Question | None:
    """Return the question of --detect; None without it."""
    if arguments.detect is None:
        for name, default in _QUESTION.items():
            if getattr(arguments, name) != default:
                raise UserError(f"--{name} belongs to --detect; add it, as --detect 3pp")
        return None
    from bench.stats.power import Question, difference

    question = Question(difference(arguments.detect), arguments.power, arguments.alpha, arguments.discordance)
    question.check_size()
    return question


def _refused(rows: Mapping[str, list[Cell]]) -> dict[str, str]:
    """Return the rows whose attack does not work in the norm of the threat, with the reason."""
    reasons = {norm: of_other_norms(norm) for norm in {cells[0].threat.norm for cells in rows.values()}}
    found = {row: reasons[cells[0].threat.norm].get(cells[0].attack.name, "") for row, cells in rows.items()}
    return {row: reason for row, reason in found.items() if reason}


def _probe(
    board: Board, options: Options, folder: Path, rows: Mapping[str, list[Cell]], forecasts: Mapping[str, Forecast]
) -> dict[str, Forecast]:
    """Return forecasts of the rows without results by running a little of them; they are stored in the folder too."""
    import torch

    from bench.execution.cell_runner import CellRunner
    from bench.execution.forecast.probe import probe

    unknown = {
        row: cells[0] for row, cells in rows.items() if row not in forecasts or forecasts[row].source != "results"
    }
    torch.set_num_threads(board.threads)

    def report(number: int, count: int, row: str) -> None:
        print(f"probe [{number}/{count}] {row}", file=sys.stderr, flush=True)

    if not unknown:
        return {}
    with no_empty_folder(folder):
        make_folder(folder)
        probed = probe(CellRunner(board.images, options), unknown, budget=_PROBE_SECONDS, report=report)
        if probed:
            write_forecast(folder, read_forecast(folder) | probed)
    return probed


def _show(row: str, cells: list[Cell], lines: Mapping[str, Any], forecast: Forecast | None, refused: str) -> None:
    """Print a row of the plan; refused: why its attack cannot run."""
    total, done = len(cells), sum(c.key in lines for c in cells)
    seeds = len({c.defense.training_seed for c in cells} - {None})
    blocks = counted(total // max(1, seeds), "block")
    size = f"{counted(seeds, 'seed')} x {blocks}" if seeds else blocks
    text = f"{row} | {size}{f', {done} finished' if done else ''}"
    if refused:
        text += f" | unsupported: {refused}"
    elif forecast is not None:
        bound = "at least " if forecast.source == "at least" else ""
        source = "" if forecast.source == "at least" else f", by {forecast.source}"
        text += f" | {bound}{human_time(forecast.seconds)} and {forecast.evaluations:,.0f} evaluations a block{source}"
    print(text)


def _show_totals(
    rows: Mapping[str, list[Cell]], lines: Mapping[str, Any], forecasts: Mapping[str, Forecast], workers: int
) -> None:
    """Print the forecast of all unfinished cells, by defense and in total."""
    unfinished = {row: [c for c in cells if c.key not in lines] for row, cells in rows.items()}
    known = {row: cells for row, cells in unfinished.items() if cells and row in forecasts}
    n_unknown = sum(bool(cells) for cells in unfinished.values()) - len(known)
    if not known:
        if n_unknown and not forecasts:
            print("no forecast yet: add --probe")
        return
    by_defense: dict[str, float] = {}
    seconds, evaluations = [], 0.0
    for row, cells in known.items():
        forecast = forecasts[row]
        seconds += [forecast.seconds] * len(cells)
        evaluations += forecast.evaluations * len(cells)
        label = cells[0].defense.label
        by_defense[label] = by_defense.get(label, 0.0) + forecast.seconds * len(cells)
    for label, total in by_defense.items():
        print(f"forecast for {label}: {human_time(total)}")
    notes = _notes({forecasts[row].source for row in known}, n_unknown)
    caveats = f" ({'; '.join(notes)})" if notes else ""
    several = f", {human_time(makespan(seconds, workers))} with {workers} workers" if workers > 1 else ""
    print(f"forecast: {human_time(sum(seconds))}{several}, {evaluations:,.0f} evaluations{caveats}")


def _notes(sources: set[str], n_unknown: int) -> list[str]:
    """Return the caveats of a forecast by its sources and the number of rows that have none."""
    notes = [f"{counted(n_unknown, 'row')} unknown"] if n_unknown else []
    if "at least" in sources:
        notes.append("some rows at least")
    if "probe" in sources:
        notes.append("probed rows rather too much: attacks break more images than a probe, and leave them")
    if SAMPLE in sources:
        notes.append(f"rows by {SAMPLE}: their mean, and no bound")
    return notes
