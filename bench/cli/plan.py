"""`purebench plan`: show what a board would run, and what that would take."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.attacks.catalogue import of_other_norms
from bench.cli.arguments import add_device, refuse_with
from bench.cli.board_options import (
    add_board,
    add_selection,
    read_stored,
    results_folder,
    selected_board,
    selected_rows,
    shard_of,
    worker_count,
    workers,
)
from bench.cli.planned import PlannedCell, of_cells, of_folder
from bench.cli.ray_options import UNSET
from bench.execution.forecast.estimates import SAMPLE, makespan, measured, read_forecast, write_forecast
from bench.execution.options import Options
from bench.execution.resume import resumable
from bench.execution.workers.limits import all_workers
from bench.spec.cell import row_of
from defenses.utils.errors import UserError
from defenses.utils.files import make_folder, no_empty_folder
from defenses.utils.text import counted, human_time

if TYPE_CHECKING:
    from bench.board.board import Board
    from bench.execution.forecast.estimates import Forecast
    from bench.spec.cell import Cell
    from bench.stats.power import Question
    from bench.store.parts import CellRecord

_PROBE_SECONDS = 60.0
_QUESTION = {"power": 0.8, "alpha": 0.05, "discordance": 0.1}  # defaults of the options beside --detect


@dataclass(frozen=True)
class Machine:
    """Processes and price of the machine of a plan.

    Args:
        workers: number of processes.
        price: of an hour, in any currency; None: unknown.
    """

    workers: int
    price: float | None

    def cost(self, seconds: Sequence[float]) -> str:
        """Return what cells of these durations take with all workers, and cost, as text after the sum of durations."""
        took = makespan(seconds, self.workers)
        several = f", {human_time(took)} with {self.workers} workers" if self.workers > 1 else ""
        return (
            several if self.price is None else f"{several}, {self.price * took / 3600:,.2f} at {self.price:g} an hour"
        )


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_board(sub, preset=True, folder=True)
    add_selection(sub)
    sub.add_argument("--probe", action="store_true", help="time the rows without results, in about a minute")
    sub.add_argument(
        "--workers", type=workers, default=UNSET, help='forecast for so many processes, or "auto" (default: as run)'
    )
    sub.add_argument(
        "--price", type=_price, metavar="PER_HOUR", help="of this machine: what the forecast costs, as 0.40"
    )
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
    question = _question(arguments)
    if arguments.board is not None and Path(arguments.board).is_dir():
        refuse_with("results folder", arguments, "compute")
        return _of_folder(arguments)
    from bench.execution.cell_runner import CellRunner
    from bench.execution.run_board import check_device, select

    board = selected_board(arguments)
    defenses, attacks = selected_rows(arguments)
    options = Options(
        data_root=arguments.data_root,
        weights_root=arguments.weights_root,
        device=arguments.device,
        defenses=defenses,
        attacks=attacks,
        shard=shard_of(arguments),
    )
    if arguments.probe:
        check_device(board.compute, options)
    cells = board.cells()
    selection, folder = select(cells, options), results_folder(arguments, board)
    CellRunner(board.images, options).try_parameters(selection)
    found = resumable(cells, read_stored(folder, board.name, board.keys())[0])
    forecasts = _forecasts(folder, of_cells(cells), found.lines)
    if arguments.probe:
        first: dict[str, Cell] = {}
        for cell in selection:
            if not _refusal(cell.threat.norm, cell.attack.name):
                first.setdefault(row_of(cell), cell)
        forecasts |= _probe(board, options, folder, first, forecasts)
    machine = Machine(worker_count(arguments, board), arguments.price)
    _show_plan(of_cells(selection), found.lines, forecasts, folder, machine, found.notes)
    if question is not None:
        from bench.analysis.sample_size import advice

        print("\n".join(advice(board, question, folder)))
    return 0


def _of_folder(arguments: argparse.Namespace) -> int:
    """Show the plan that a results folder stores."""
    folder = Path(arguments.board)
    for name in ("probe", "detect", "shard"):
        if getattr(arguments, name):
            raise UserError(f"--{name} needs the board of {folder}; name its file or the board, as quickstart")
    cells, name = of_folder(folder, arguments.defense, arguments.attack)
    lines = read_stored(folder, name)[0]
    forecasts = _forecasts(folder, cells, lines)
    asked = 1 if arguments.workers == UNSET else arguments.workers
    _show_plan(cells, lines, forecasts, folder, Machine(asked or all_workers(1, arguments.device), arguments.price))
    return 0


def _price(text: str) -> float:
    """Parse a price of an hour."""
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no price of an hour; write it as 0.40")
    return price


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


def _refusal(norm: str, attack: str) -> str:
    """Return why an attack does not work in the norm of the threat; "" if it may."""
    return of_other_norms(norm).get(attack, "")


def _forecasts(folder: Path, cells: Iterable[PlannedCell], lines: Mapping[str, CellRecord]) -> dict[str, Forecast]:
    """Return the forecasts of a folder by row: stored ones, and those of finished cells."""
    return read_forecast(folder) | measured({c.key: c.row for c in cells}, lines)


def _show_plan(
    cells: Sequence[PlannedCell],
    stored: Container[str],
    forecasts: Mapping[str, Forecast],
    folder: Path,
    machine: Machine,
    notes: Iterable[str] = (),
) -> None:
    """Print the rows of a plan and their totals."""
    rows: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        rows.setdefault(cell.row, []).append(cell)
    able: dict[str, list[PlannedCell]] = {}
    for row, members in rows.items():
        refused = _refusal(members[0].norm, members[0].attack)
        _show(row, members, stored, forecasts.get(row), refused)
        able |= {} if refused else {row: members}
    for note in notes:
        print(note)
    sizes = [cell.images for cell in cells]
    count = f"{len(cells)} cells of up to {max(sizes, default=0)} images"
    print(f"{count}, {sum(sizes)} adversarial images; results in {folder}")
    _show_totals(able, stored, forecasts, machine)


def _probe(
    board: Board, options: Options, folder: Path, cells: Mapping[str, Cell], forecasts: Mapping[str, Forecast]
) -> dict[str, Forecast]:
    """Return forecasts of the rows without results by running a little of them; they are stored in the folder too."""
    import torch

    from bench.execution.cell_runner import CellRunner
    from bench.execution.forecast.probe import probe

    unknown = {row: cell for row, cell in cells.items() if row not in forecasts or forecasts[row].source != "results"}
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


def _show(row: str, cells: list[PlannedCell], stored: Container[str], forecast: Forecast | None, refused: str) -> None:
    """Print a row of the plan; refused: why its attack cannot run."""
    total, done = len(cells), sum(c.key in stored for c in cells)
    seeds = len({c.seed for c in cells} - {None})
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
    rows: Mapping[str, list[PlannedCell]], stored: Container[str], forecasts: Mapping[str, Forecast], machine: Machine
) -> None:
    """Print the forecast of all unfinished cells, by defense and in total."""
    unfinished = {row: [c for c in cells if c.key not in stored] for row, cells in rows.items()}
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
        label = cells[0].label
        by_defense[label] = by_defense.get(label, 0.0) + forecast.seconds * len(cells)
    for label, total in by_defense.items():
        print(f"forecast for {label}: {human_time(total)}")
    notes = _notes({forecasts[row].source for row in known}, n_unknown)
    caveats = f" ({'; '.join(notes)})" if notes else ""
    print(f"forecast: {human_time(sum(seconds))}{machine.cost(seconds)}, {evaluations:,.0f} evaluations{caveats}")


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
