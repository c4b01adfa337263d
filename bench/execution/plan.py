"""Decide what a run of a board does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.board.board import Board, BoardImages
from bench.execution.forecast.estimates import Forecast, measured, read_forecast
from bench.execution.options import Options
from bench.execution.resume import Resumable
from bench.spec.cell import Cell, row_of
from bench.store.parts import CellRecord


@dataclass(frozen=True)
class RunPlan:
    """The cells that a run does, and all that it needs of their board.

    Args:
        folder: the results folder.
        cells: of the board, in table order.
        pending: those to run.
        redo: by key, the records of pending cells that do not count as finished.
        outdated: by key, the records of pending cells that are of earlier code or files.
        forecasts: of the rows to run, as far as there are any.
        images: of the board.
        threads: torch threads of every process.
        time_limit: seconds that a cell may take; None: no limit.
        facts: of the board, for the manifest.
        notes: on its data, for the user.
        options: of the run.
    """

    folder: Path
    cells: Sequence[Cell]
    pending: Sequence[Cell]
    redo: Mapping[str, CellRecord]
    outdated: Mapping[str, CellRecord]
    forecasts: Mapping[str, Forecast]
    images: BoardImages
    threads: int
    time_limit: float | None
    facts: Mapping[str, object]
    notes: Sequence[str]
    options: Options


def plan_run(board: Board, chosen: Sequence[Cell], stored: Resumable, folder: Path, options: Options) -> RunPlan:
    """Return the plan of a run.

    Args:
        board: the board.
        chosen: its cells that are asked for.
        stored: results of its cells.
        folder: the results folder.
        options: of the run.
    """
    cells, finished = board.cells(), stored.lines
    again = {cell.key for cell in chosen} if options.retry_errors else set()
    redo = {key: line for key, line in finished.items() if key in again and has_failed(line)}
    pending = [cell for cell in chosen if cell.key not in finished or cell.key in redo]
    return RunPlan(
        folder=folder,
        cells=cells,
        pending=pending,
        redo=redo,
        outdated={cell.key: stored.outdated[cell.key] for cell in pending if cell.key in stored.outdated},
        forecasts=read_forecast(folder) | measured({cell.key: row_of(cell) for cell in cells}, finished)
        if pending
        else {},
        images=board.images,
        threads=board.threads,
        time_limit=board.time_limit if options.time_limit is None else options.time_limit,
        facts=board.manifest_facts(),
        notes=board.notes,
        options=options,
    )


def has_failed(line: CellRecord) -> bool:
    """Return True if a cell or some of its images ended in an error."""
    return bool(line["error"]) and line["status"] != "unsupported"
