"""Run a board: what is finished is skipped, every cell is done once, by one process or by several."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board.board import Board
from bench.doctor.examine import require
from bench.evaluation.certificates import stored
from bench.evaluation.devices import device_named
from bench.execution.cell_runner import CellRecord, CellRunner, one_per_defense, work
from bench.execution.forecast.estimates import Forecast, measured, read_forecast, run_entry
from bench.execution.options import Options
from bench.execution.progress import Progress
from bench.execution.workers.limits import Limits, default_memory
from bench.execution.workers.pool import PoolCallbacks, run_workers
from bench.execution.workers.process import warm_up
from bench.spec.cell import NULLS, Cell, digest
from bench.store.environment import describe_run
from bench.store.folder import NotWritable, Store, write_atomic
from bench.store.manifest import check_board, forced_defenses, read_manifest, update_manifest
from defenses.utils.errors import UserError, unknown
from defenses.utils.files import no_empty_folder

if TYPE_CHECKING:
    from bench.board.board import Board


def run_board(board: Board, folder: Path, options: Options) -> list[str]:
    """Run what is not finished, merge its parts, and bring the manifest up to date.

    Args:
        board: what to run.
        folder: where results go.
        options: how.

    Returns:
        One line for every error on record among the planned cells; empty when there is none.

    Raises:
        UserError: bad input; nothing that was finished is lost.
    """
    cells = board.cells()
    chosen = select(cells, options)
    check_board(folder, board.name)
    if options.device != "cpu":
        device_named(options.device)  # refused before anything is written
    with no_empty_folder(folder):
        return _run(board, Store(folder), cells, chosen, options)


def _run(board: Board, store: Store, cells: list[Cell], chosen: list[Cell], options: Options) -> list[str]:
    """`run_board`, once the cells and the folder are known."""
    finished = store.finished(_warn)
    keys = {c.key for c in chosen} if options.retry_errors else set()
    redo = {key: line for key, line in finished.items() if key in keys and _failed(line)}
    pending = [c for c in chosen if c.key not in finished or c.key in redo]
    if pending:
        _run_pending(board, store, pending, options, redo, _known(store.folder, cells, finished), cells)
        finished = store.finished(_warn)
    else:
        _write_plan(store, cells)
        update_manifest(store, board.manifest_facts())
    with suppress(NotWritable):  # parts left to merge are as good as merged ones
        store.compact([c.columns() for c in cells])
    missing = sum(c.key not in finished for c in pending)
    if missing:
        raise UserError(f"{missing} cells were not finished; repeat the command")
    planned = [finished[c.key] for c in cells if c.key in finished]
    return [f"{_name(line)}: {line['error']}" for line in planned if _failed(line)]


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _failed(line: CellRecord) -> bool:
    """Whether a cell or some of its images ended in an error."""
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
    """The cells of the defenses and attacks asked for; null attacks always come along."""
    for kind, asked in (("defense", options.defenses), ("attack", options.attacks)):
        names = {getattr(c, kind).label for c in cells}
        for name in asked:
            if name not in names:
                raise unknown(f"{kind} in this board", name, names)
    kept = [c for c in cells if not options.defenses or c.defense.label in options.defenses]
    return [c for c in kept if not options.attacks or c.attack.label in options.attacks or c.attack.name in NULLS]


def _known(folder: Path, cells: Iterable[Cell], finished: Mapping[str, CellRecord]) -> dict[str, Forecast]:
    """What rows take, as far as is known: finished cells know better than a probe."""
    return read_forecast(folder) | measured(cells, finished)


def _run_pending(
    board: Board,
    store: Store,
    pending: list[Cell],
    options: Options,
    redo: Mapping[str, CellRecord],
    known: Mapping[str, Forecast],
    cells: list[Cell],
) -> None:
    for suite in sorted({c.attack.name.partition(":")[0] for c in pending}):
        require(suite)  # a broken library stops the run before any work is done
    if apart := _in_processes(board, options):
        warm_up(board)
    run = describe_run(board.threads, options.workers, options.device)
    if entry := run_entry(known, pending):
        run["forecast"] = entry
    expected = {row: forecast.seconds for row, forecast in known.items()}
    progress = Progress(pending, workers=options.workers, quiet=options.quiet, expected=expected)
    by_key = {c.key: c for c in pending}
    uncertified = stored.missing(store.folder, pending)

    options = replace(options, probabilities=options.probabilities | taken(board, read_manifest(store.folder)))

    def begin(found: Mapping[str, CellRecord], softmax: set[str]) -> None:
        _write_plan(store, cells)
        if softmax:
            run["probabilities"] = {d.title: digest(d.fingerprint) for d in board.defenses if d.title in softmax}
        update_manifest(store, board.manifest_facts(), run)
        stored.add(store.folder, {uncertified[title]: found[title] for title in found})

    def report(key: str, status: str, seconds: float | None, note: str | None) -> None:
        progress.finished(by_key[key], status, seconds, note)

    if apart:
        limits, certified = _limits(board, options), frozenset(uncertified)
        orders = PoolCallbacks(run["id"], begin, certified, report, redo, limits, progress.expected)
        run_workers(board, store, pending, options, orders)
    else:
        workshop = CellRunner(board, options)
        each = one_per_defense(pending)
        # Bad models stop the run before any work is done.
        softmax = {c.defense.title for c in each if workshop.check(c)[1]}
        begin({c.defense.title: workshop.certify(c) for c in each if c.defense.title in uncertified}, softmax)
        work(store, pending, workshop, run["id"], report, redo=redo)
    run["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    run["seconds"] = round(progress.elapsed(), 3)
    update_manifest(store, board.manifest_facts(), run)


def _limits(board: Board, options: Options) -> Limits:
    seconds = board.time_limit if options.time_limit is None else options.time_limit
    return Limits(seconds, default_memory(options.workers) if options.memory is None else options.memory)


def _in_processes(board: Board, options: Options) -> bool:
    """Whether cells run in worker processes: only those can be stopped, whatever they are at."""
    asked = options.time_limit is not None or options.memory is not None
    if options.loaded and (asked or options.workers > 1):
        raise UserError("a model in memory runs in this process and without limits; give it as module:Class for more")
    if not options.workers and (asked or board.time_limit is not None):
        raise UserError("cells that run in this process (workers 0) have no limits; use a worker process, or drop them")
    return options.workers > 0 and not options.loaded


def taken(board: Board, manifest: Mapping[str, Any]) -> set[str]:
    """The titles of a board's defenses that earlier runs of its folder took although they return probabilities."""
    seen = forced_defenses(manifest)
    return {d.title for d in board.defenses if digest(d.fingerprint) in seen}
