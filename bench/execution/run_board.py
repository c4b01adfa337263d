"""Run the unfinished cells of a board, each once, in this process or in workers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.board.board import Board
from bench.board.data_notes import data_notes
from bench.doctor.examine import require
from bench.evaluation.certificates import stored
from bench.execution.cell_runner import CellRunner, one_per_defense, refuse_beside, run_cells
from bench.execution.forecast.estimates import Forecast, measured, read_forecast, run_entry
from bench.execution.options import Options
from bench.execution.progress import Progress
from bench.execution.resume import resumable
from bench.execution.sources import Sources
from bench.execution.workers.limits import Limits, default_memory
from bench.execution.workers.pool import PoolCallbacks, run_workers
from bench.execution.workers.process import warm_up
from bench.spec.cell import Cell, digest
from bench.store.environment import describe_run
from bench.store.folder import NotWritable, Store, write_atomic
from bench.store.manifest import check_board, forced_defenses, read_manifest, resumed_anyway, update_manifest
from bench.store.parts import CellRecord
from defenses.utils.errors import UserError, unknown
from defenses.utils.files import no_empty_folder
from defenses.utils.replacements import replacement_notes
from defenses.utils.text import clean, counted


def run_board(board: Board, folder: Path, options: Options) -> list[str]:
    """Run the unfinished cells of a board, merge their parts, and update the manifest.

    Args:
        board: the board.
        folder: the results folder.
        options: options of the run.

    Returns:
        A line for every recorded error of the planned cells; empty without errors.

    Raises:
        UserError: bad input; finished cells are kept.
    """
    cells = board.cells()
    chosen = select(cells, options)
    board = _with_notes(board, options)
    check_board(folder, board.name, board.keys())
    if options.device != "cpu":
        from defenses.utils.devices import device_named

        device_named(options.device)  # refused before anything is written
    with no_empty_folder(folder):
        return _run(board, Store(folder), cells, chosen, options)


def _with_notes(board: Board, options: Options) -> Board:
    """Return the board with notes on its data."""
    roots: dict[str, Any] = {"data_root": options.data_root or board.data_root, "in_memory": options.loaded}
    found = data_notes(board.defenses, board.dataset, board.split, **roots)
    return replace(board, notes=tuple(dict.fromkeys((*board.notes, *found, *replacement_notes()))))


def _print_notes(board: Board) -> None:
    for note in board.notes:
        print(f"note: {clean(note)}", file=sys.stderr)


def _run(board: Board, store: Store, cells: list[Cell], chosen: list[Cell], options: Options) -> list[str]:
    stored_lines = resumable(cells, store.finished(_warn), anyway=options.resume_anyway)
    for note in stored_lines.notes:
        print(f"note: {clean(note)}", file=sys.stderr)
    finished = stored_lines.lines
    keys = {c.key for c in chosen} if options.retry_errors else set()
    redo = {key: line for key, line in finished.items() if key in keys and _failed(line)}
    pending = [c for c in chosen if c.key not in finished or c.key in redo]
    if not options.quiet:
        print(_intent(chosen, len(chosen) - len(pending), store.folder), file=sys.stderr, flush=True)
    if outdated := {c.key: stored_lines.outdated[c.key] for c in pending if c.key in stored_lines.outdated}:
        store.forget(outdated)
    for cell in () if options.loaded else one_per_defense(pending):
        refuse_beside(cell)
    if pending:
        forecasts = read_forecast(store.folder) | measured(cells, finished)
        _run_pending(board, store, cells, pending, options, redo, forecasts)
        finished = store.finished(_warn)
    else:  # notes were told by the run that made the cells, and are below the tables
        _write_plan(store, cells)
        update_manifest(store, board.manifest_facts())
    if stored_lines.resumed:
        _mark_resumed(board, store, stored_lines.resumed, options)
    with suppress(NotWritable):  # unmerged parts are as good as merged ones
        store.compact([c.columns() for c in cells])
    missing = sum(c.key not in finished for c in pending)
    if missing:
        raise UserError(f"{missing} cells were not finished; repeat the command")
    planned = [finished[c.key] for c in cells if c.key in finished]
    return [f"{_name(line)}: {line['error']}" for line in planned if _failed(line)]


def _intent(cells: Sequence[Cell], finished: int, folder: Path) -> str:
    """Return what a run will do, in one line; it is told before torch is imported, which takes seconds."""
    blocks = {(c.data.start, c.data.stop) for c in cells}
    threats = {str(c.threat): None for c in cells}
    sizes = (
        counted(len({c.defense.title for c in cells}), "defense"),
        counted(len({c.attack.label for c in cells}), "attack"),
        counted(sum(stop - start for start, stop in blocks), "image"),
        *([counted(len(threats), "threat")] if len(threats) > 1 else []),
    )
    return f"{counted(len(cells), 'cell')}, {finished} finished: {' x '.join(sizes)}; results in {folder}"


def _mark_resumed(board: Board, store: Store, reasons: Mapping[str, str], options: Options) -> None:
    """Write to the manifest of which defenses results were taken over although they may be of another model."""
    if not reasons.items() <= resumed_anyway(read_manifest(store.folder)).items():
        entry = describe_run(board.threads, options.workers, options.device) | {"resumed": dict(reasons)}
        update_manifest(store, board.manifest_facts(), entry)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _failed(line: CellRecord) -> bool:
    """Return True if a cell or some of its images ended in an error."""
    return bool(line["error"]) and line["status"] != "unsupported"


def _name(line: Mapping[str, Any]) -> str:
    last = line["block"] + line["images"] - 1
    return f"{line['defense']} | {line['attack']} | {line['view']} | images {line['block']}-{last}"


def _write_plan(store: Store, cells: Iterable[Cell]) -> None:
    text = "".join(json.dumps(c.columns(), sort_keys=True) + "\n" for c in cells)
    path = store.folder / "plan.jsonl"
    if not path.is_file() or path.read_bytes() != text.encode():
        write_atomic(path, text)


def select(cells: list[Cell], options: Options) -> list[Cell]:
    """Return the cells of the selected defenses and attacks, with those of the null attacks.

    Args:
        cells: cells of a board.
        options: their `defenses` and `attacks`, by label; empty: all.

    Raises:
        UserError: unknown label.
    """
    for kind, selected in (("defense", options.defenses), ("attack", options.attacks)):
        known = {getattr(c, kind).label: getattr(c, kind) for c in cells}
        for label in selected:
            if not any(one.is_called(label) for one in known.values()):
                raise unknown(f"{kind} in this board", label, known)
    cells = [c for c in cells if not options.defenses or any(map(c.defense.is_called, options.defenses))]
    return [
        c for c in cells if not options.attacks or c.attack.is_null or any(map(c.attack.is_called, options.attacks))
    ]


@dataclass
class _PendingRun:
    """A run of the pending cells of a board, with its entry of the manifest."""

    board: Board
    store: Store
    cells: list[Cell]  # of the board, in table order
    pending: list[Cell]
    options: Options
    redo: Mapping[str, CellRecord]  # by key, the records that do not count as finished
    forecasts: Mapping[str, Forecast]  # by row

    def __post_init__(self) -> None:
        options = self.options
        self.entry = describe_run(self.board.threads, options.workers, options.device)
        if rows := run_entry(self.forecasts, self.pending):
            self.entry["forecast"] = rows
        expected = {row: forecast.seconds for row, forecast in self.forecasts.items()}
        self.progress = Progress(self.pending, workers=options.workers, quiet=options.quiet, expected=expected)
        self.uncertified = stored.missing(self.store.folder, self.pending, holds=Sources().certificate_holds)
        self._by_key = {c.key: c for c in self.pending}
        accepted = options.probabilities | _accepted(self.board, read_manifest(self.store.folder))
        self.options = replace(options, probabilities=accepted)

    def begin(self, certificates: Mapping[str, dict[str, Any]], softmax: set[str]) -> None:
        """Write the plan, the manifest and new certificates, before the first cell.

        Args:
            certificates: new gradient certificates by title.
            softmax: titles of the defenses that return probabilities.
        """
        _print_notes(self.board)  # not before, as a model may be refused
        _write_plan(self.store, self.cells)
        if softmax:
            digests = {d.title: digest(d.fingerprint) for d in self.board.defenses if d.title in softmax}
            self.entry["probabilities"] = digests
        update_manifest(self.store, self.board.manifest_facts(), self.entry)
        stored.add(self.store.folder, {self.uncertified[title]: certificates[title] for title in certificates})

    def report(self, key: str, status: str, seconds: float | None, note: str | None) -> None:
        """Report a finished cell; `Progress.finished` has the arguments."""
        self.progress.finished(self._by_key[key], status, seconds, note)

    def in_workers(self) -> None:
        """Run the cells in worker processes."""
        callbacks = PoolCallbacks(
            run=self.entry["id"],
            begin=self.begin,
            certified=frozenset(self.uncertified),
            report=self.report,
            redo=self.redo,
            limits=_limits(self.board, self.options),
            estimate=self.progress.expected,
        )
        run_workers(self.board, self.store, self.pending, self.options, callbacks)

    def in_this_process(self) -> None:
        """Run the cells in this process; bad models stop the run before the first cell."""
        runner, cells = CellRunner(self.board, self.options), one_per_defense(self.pending)
        softmax = {c.defense.title for c in cells if runner.check(c)[1]}
        self.begin({c.defense.title: runner.certify(c) for c in cells if c.defense.title in self.uncertified}, softmax)
        run_cells(self.store, self.pending, runner, self.entry["id"], self.report, redo=self.redo)

    def finish(self) -> None:
        """Write the end of the run to the manifest."""
        self.entry["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.entry["seconds"] = round(self.progress.elapsed(), 3)
        update_manifest(self.store, self.board.manifest_facts(), self.entry)


def _run_pending(
    board: Board,
    store: Store,
    cells: list[Cell],
    pending: list[Cell],
    options: Options,
    redo: Mapping[str, CellRecord],
    forecasts: Mapping[str, Forecast],
) -> None:
    for suite in sorted({c.attack.name.partition(":")[0] for c in pending}):
        require(suite)  # a broken library stops the run before the first cell
    if in_workers := _in_workers(board, options):
        warm_up(board)
    run = _PendingRun(board, store, cells, pending, options, redo, forecasts)
    if in_workers:
        run.in_workers()
    else:
        run.in_this_process()
    run.finish()


def _limits(board: Board, options: Options) -> Limits:
    seconds = board.time_limit if options.time_limit is None else options.time_limit
    return Limits(seconds, default_memory(options.workers) if options.memory is None else options.memory)


def _in_workers(board: Board, options: Options) -> bool:
    """Return True if cells run in worker processes; refuse limits where they do not."""
    limited = options.time_limit is not None or options.memory is not None
    if options.loaded and (limited or options.workers > 1):
        raise UserError("a model in memory runs in this process and without limits; give it as module:Class for more")
    if not options.workers and (limited or board.time_limit is not None):
        raise UserError("cells that run in this process (workers 0) have no limits; use a worker process, or drop them")
    return options.workers > 0 and not options.loaded


def _accepted(board: Board, manifest: Mapping[str, Any]) -> set[str]:
    """Return the titles of a board's defenses that earlier runs accepted although they return probabilities."""
    forced = forced_defenses(manifest)
    return {d.title for d in board.defenses if digest(d.fingerprint) in forced}
