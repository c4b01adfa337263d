"""Run the unfinished cells of a board, each once, in this process or in workers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bench.board.board import Board
from bench.board.data_notes import data_notes
from bench.doctor.examine import require
from bench.evaluation.certificates import stored
from bench.evaluation.certificates.certificate import CertificateRecord
from bench.execution.cell_runner import CellRunner, one_per_defense, refuse_beside, run_cells
from bench.execution.evaluations import evaluations
from bench.execution.forecast.estimates import makespan
from bench.execution.options import Options
from bench.execution.outdated_audits import mark_outdated_audits
from bench.execution.plan import RunPlan, has_failed, plan_run
from bench.execution.progress import Progress
from bench.execution.resume import Resumable, resumable
from bench.execution.shards import keys_of
from bench.execution.sources import Sources
from bench.execution.workers.limits import Limits, default_memory
from bench.execution.workers.pool import PoolCallbacks, WorkerPool
from bench.execution.workers.process import local_processes, warm_up
from bench.execution.workers.session import WorkerSettings
from bench.spec.cell import Cell, digest, row_of
from bench.spec.shard import Shard
from bench.store.environment import RunRecord, describe_run
from bench.store.folder import NotWritable, Store, write_atomic
from bench.store.manifest import check_board, forced_defenses, read_manifest, resumed_anyway, shards_of, update_manifest
from bench.store.parts import CellRecord
from defenses.utils.errors import UserError, unknown
from defenses.utils.files import no_empty_folder
from defenses.utils.hints import note, warn
from defenses.utils.replacements import replacement_notes
from defenses.utils.text import counted, human_time


def run_board(board: Board, folder: Path, options: Options) -> list[str]:
    """Run the unfinished cells of a board, merge their parts, and update the manifest.

    A script that calls it needs `if __name__ == "__main__":` around that: worker processes import the script.

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
        store = Store(folder)
        found = resumable(cells, store.finished(warn), anyway=options.resume_anyway)
        for text in (*found.notes, *mark_outdated_audits(folder, board.defenses)):
            note(text)
        plan = plan_run(board, chosen, found, folder, options)
        if not options.quiet:
            print(_intent(chosen, plan), file=sys.stderr, flush=True)
        return _run(plan, store, found)


def _with_notes(board: Board, options: Options) -> Board:
    """Return the board with notes on its data."""
    found = data_notes(board.defenses, board.dataset, board.split, in_memory=options.loaded)
    return replace(board, notes=tuple(dict.fromkeys((*board.notes, *found, *replacement_notes()))))


def _run(plan: RunPlan, store: Store, found: Resumable) -> list[str]:
    """Run a plan; `found` has the results that it takes over."""
    finished = found.lines
    if plan.outdated:
        store.forget(plan.outdated)
    for cell in () if plan.options.loaded else one_per_defense(plan.pending):
        refuse_beside(cell)
    if plan.pending:
        for suite in sorted({c.attack.name.partition(":")[0] for c in plan.pending}):
            require(suite)  # a broken library stops the run before the first cell
        if in_workers := _in_workers(plan):
            warm_up(plan.threads)
        _Run(plan, store).run(in_workers=in_workers)
        finished = store.finished(warn)
    else:  # notes were told by the run that made the cells, and are below the tables
        _write_plan(plan)
        update_manifest(store, plan.facts)
    _complete_manifest(plan, store, found.resumed)
    with suppress(NotWritable):  # unmerged parts are as good as merged ones
        store.compact([c.columns() for c in plan.cells])
    missing = sum(c.key not in finished for c in plan.pending)
    if missing:
        raise UserError(f"{missing} cells were not finished; repeat the command")
    planned = [finished[c.key] for c in plan.cells if c.key in finished]
    return [f"{_name(line)}: {line['error']}" for line in planned if has_failed(line)]


def _intent(cells: Sequence[Cell], plan: RunPlan) -> str:
    """Return what a run will do, in one line; it is told before torch is imported, which takes seconds."""
    finished = len(cells) - len(plan.pending)
    blocks = {(c.data.start, c.data.stop) for c in cells}
    threats = {str(c.threat): None for c in cells}
    sizes = (
        counted(len({c.defense.title for c in cells}), "defense"),
        counted(len({c.attack.label for c in cells}), "attack"),
        counted(sum(stop - start for start, stop in blocks), "image"),
        *([counted(len(threats), "threat")] if len(threats) > 1 else []),
    )
    shard = "" if plan.options.shard is None else f"shard {plan.options.shard}: "
    forecast = f"; forecast {_forecast(plan)}" if plan.pending else ""
    count = f"{counted(len(cells), 'cell')}, {finished} finished"
    return f"{shard}{count}: {' x '.join(sizes)}{forecast}; results in {plan.folder}"


def _forecast(plan: RunPlan) -> str:
    """Return the time that a run will take, where earlier results or a probe tell it; else its evaluations."""
    rows = [row_of(cell) for cell in plan.pending]
    if all(row in plan.forecasts for row in rows):
        return human_time(makespan((plan.forecasts[row].seconds for row in rows), max(1, plan.options.workers)))
    count = sum(map(evaluations, plan.pending))
    digits = len(str(count)) - 2
    return f"{round(count, -digits):,} evaluations"  # two digits


def _complete_manifest(plan: RunPlan, store: Store, resumed: Mapping[str, str]) -> None:
    """Write to the manifest what no run of it says: a shard without cells to run, and results taken over.

    Args:
        plan: of the run.
        store: its folder.
        resumed: reasons by label, see `Resumable`.
    """
    manifest, options, told = read_manifest(plan.folder), plan.options, RunRecord()
    if options.shard is not None and not shards_of(manifest.get("runs", [])).get(options.shard):
        told["shard"] = options.shard
    if not resumed.items() <= resumed_anyway(manifest).items():
        told["resumed"] = dict(resumed)
    if told:
        entry = describe_run(plan.threads, options.workers, options.device)
        update_manifest(store, plan.facts, entry | {"finished": entry["started"], "seconds": 0.0} | told)


def _name(line: CellRecord) -> str:
    last = line["block"] + line["images"] - 1
    return f"{line['defense']} | {line['attack']} | {line['view']} | images {line['block']}-{last}"


def _write_plan(plan: RunPlan) -> None:
    text = "".join(json.dumps(c.columns(), sort_keys=True) + "\n" for c in plan.cells)
    path = plan.folder / "plan.jsonl"
    if not path.is_file() or path.read_bytes() != text.encode():
        write_atomic(path, text)


def select(cells: list[Cell], options: Options) -> list[Cell]:
    """Return the cells of the selected defenses and attacks, with those of the null attacks.

    Args:
        cells: all cells of a board.
        options: their `defenses` and `attacks`, by label; empty: all. Their `shard`; None: all.

    Raises:
        UserError: unknown label.
    """
    for kind, selected in (("defense", options.defenses), ("attack", options.attacks)):
        known = {getattr(c, kind).label: getattr(c, kind) for c in cells}
        for label in selected:
            if not any(one.is_called(label) for one in known.values()):
                raise unknown(f"{kind} in this board", label, known)
    if options.shard is not None:
        keys = keys_of(Shard.parse(options.shard), cells)
        cells = [c for c in cells if c.key in keys]
    cells = [c for c in cells if not options.defenses or any(map(c.defense.is_called, options.defenses))]
    return [
        c for c in cells if not options.attacks or c.attack.is_null or any(map(c.attack.is_called, options.attacks))
    ]


class _Run:
    """A run of the pending cells of a plan, with its entry of the manifest."""

    def __init__(self, plan: RunPlan, store: Store):
        options, pending = plan.options, plan.pending
        self.plan, self.store = plan, store
        self.entry = describe_run(plan.threads, options.workers, options.device)
        if options.shard is not None:
            self.entry["shard"] = options.shard
        expected = {row: forecast.seconds for row, forecast in plan.forecasts.items()}
        self.uncertified = stored.missing(plan.folder, pending, holds=Sources().certificate_holds)
        self.progress = Progress(
            pending,
            workers=options.workers,
            quiet=options.quiet,
            expected=expected,
            certificates=len(self.uncertified),
        )
        self.digests = {c.defense.title: digest(c.defense.fingerprint) for c in one_per_defense(plan.cells)}
        # Earlier runs accepted these although they return probabilities.
        forced = forced_defenses(read_manifest(plan.folder))
        accepted = options.probabilities | {title for title, of in self.digests.items() if of in forced}
        self.options = replace(options, probabilities=accepted)

    def begin(self, certificates: Mapping[str, CertificateRecord], softmax: set[str]) -> None:
        """Write the plan, the manifest and new certificates, before the first cell.

        Args:
            certificates: new gradient certificates by title.
            softmax: titles of the defenses that return probabilities.
        """
        self.progress.clear()
        earlier = read_manifest(self.plan.folder).get("notes", ())  # by an earlier run
        for text in self.plan.notes:  # not before, as a model may be refused
            if text not in earlier:
                note(text)
        _write_plan(self.plan)
        if softmax:
            self.entry["probabilities"] = {title: of for title, of in self.digests.items() if title in softmax}
        update_manifest(self.store, self.plan.facts, self.entry)
        stored.add(self.plan.folder, {self.uncertified[title]: certificates[title] for title in certificates})

    def run(self, *, in_workers: bool) -> None:
        """Run the cells, and write the end of the run to the manifest."""
        if in_workers:
            self._in_workers()
        else:
            self._in_this_process()
        self.entry["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.entry["seconds"] = round(self.progress.elapsed(), 3)
        update_manifest(self.store, self.plan.facts, self.entry)

    def _in_workers(self) -> None:
        """Run the cells in worker processes."""
        plan, options, run = self.plan, self.options, self.entry["id"]
        memory = default_memory(options.workers) if options.memory is None else options.memory
        limits, progress = Limits(plan.time_limit, memory), self.progress
        callbacks = PoolCallbacks(
            *(run, self.begin, progress.finished, limits, progress.durations.expected),
            prepared=progress.prepared,
            advanced=progress.advanced,
        )
        with local_processes(WorkerSettings(plan.images, plan.threads, plan.folder, options, run, memory)) as backend:
            WorkerPool(backend, self.store, callbacks, plan.pending, plan.redo, self.uncertified).run(options.workers)

    def _in_this_process(self) -> None:
        """Run the cells in this process; bad models stop the run before the first cell."""
        import torch

        plan, progress = self.plan, self.progress
        runner, cells = CellRunner(plan.images, self.options, progress.advanced), one_per_defense(plan.pending)
        softmax: set[str] = set()
        certificates: dict[str, CertificateRecord] = {}
        for cell in cells:
            softmax |= {cell.defense.title} if runner.check(cell)[1] else set()
            progress.prepared("check", cell.defense.title)
        for cell in (c for c in cells if c.defense.title in self.uncertified):
            certificates[cell.defense.title] = runner.certify(cell)
            progress.prepared("certificate", cell.defense.title)
        self.begin(certificates, softmax)
        torch.set_num_threads(plan.threads)
        run_cells(self.store, plan.pending, runner, self.entry["id"], progress.finished, redo=plan.redo)


def _in_workers(plan: RunPlan) -> bool:
    """Return True if cells run in worker processes; refuse limits where they do not."""
    options = plan.options
    if options.loaded and (options.time_limit is not None or options.memory is not None or options.workers > 1):
        raise UserError("a model in memory runs in this process and without limits; give it as module:Class for more")
    if not options.workers and (plan.time_limit is not None or options.memory is not None):
        raise UserError("cells that run in this process (workers 0) have no limits; use a worker process, or drop them")
    return options.workers > 0 and not options.loaded
