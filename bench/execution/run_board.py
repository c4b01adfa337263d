"""Run the unfinished cells of a board, each once, in this process or in workers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.board.board import Board
from bench.board.data_notes import data_notes
from bench.doctor.examine import require
from bench.evaluation.certificates import stored
from bench.evaluation.certificates.certificate import CertificateRecord
from bench.execution.cell_runner import CellRunner, one_per_defense, refuse_beside, run_cells
from bench.execution.intent import intent
from bench.execution.options import Options, RayOptions
from bench.execution.outdated_audits import mark_outdated_audits
from bench.execution.plan import RunPlan, has_failed, plan_run
from bench.execution.progress import Progress
from bench.execution.resume import Resumable, resumable
from bench.execution.run_entries import RunEntries
from bench.execution.shards import keys_of
from bench.execution.sources import Sources
from bench.execution.workers.backend import Backend
from bench.execution.workers.held_cells import HeldCells
from bench.execution.workers.limits import Limits, default_memory
from bench.execution.workers.pool import PoolCallbacks, WorkerPool
from bench.execution.workers.process import local_processes, warm_up
from bench.execution.workers.session import WorkerSettings
from bench.spec.cell import Cell, digest
from bench.spec.compute import Compute
from bench.spec.shard import Shard
from bench.store.environment import RunRecord, describe_run
from bench.store.folder import NotWritable, Store, write_atomic
from bench.store.manifest import check_board, forced_defenses, read_manifest, resumed_anyway, shards_of, update_manifest
from bench.store.parts import CellRecord
from defenses.utils.errors import UserError, unknown
from defenses.utils.files import no_empty_folder
from defenses.utils.hints import note, warn
from defenses.utils.replacements import replacement_notes

if TYPE_CHECKING:
    from bench.execution.workers.cluster.connect import Cluster


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
    if options.ray is None:
        check_device(board.compute, options)  # refused before anything is written
    with no_empty_folder(folder):
        store = Store(folder)
        found = resumable(cells, store.finished(warn), anyway=options.resume_anyway)
        for text in (*found.notes, *mark_outdated_audits(folder, board.defenses)):
            note(text)
        plan = plan_run(board, chosen, found, folder, options)
        if not options.quiet:
            print(intent(chosen, plan), file=sys.stderr, flush=True)
        return _run(plan, store, found)


def check_device(compute: Compute, options: Options) -> None:
    """Refuse a device that is not there, or lacks the precision of the search; plain runs on a CPU need no torch."""
    if options.device != "cpu" or compute.precision != "float32":
        from bench.evaluation.devices import device_of
        from defenses.utils.devices import device_named
        from defenses.utils.precision import check_precision

        devices = map(device_of, options.loaded.values()) if options.loaded else [device_named(options.device)]
        for device in devices:
            check_precision(compute.precision, device)


def _with_notes(board: Board, options: Options) -> Board:
    """Return the board with notes on its data."""
    found = data_notes(board.defenses, board.dataset, board.split, in_memory=options.loaded)
    return replace(board, notes=tuple(dict.fromkeys((*board.notes, *found, *replacement_notes()))))


def _run(plan: RunPlan, store: Store, found: Resumable) -> list[str]:
    """Run a plan; `found` has the results that it takes over."""
    finished = found.lines
    for cell in () if plan.options.loaded else one_per_defense(plan.pending):
        refuse_beside(cell)
    if plan.pending:
        for suite in sorted({c.attack.name.partition(":")[0] for c in plan.pending}):
            require(suite)  # a broken library stops the run before the first cell
        _run_pending(plan, store)
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


def _run_pending(plan: RunPlan, store: Store) -> None:
    """Run the pending cells of a plan."""
    in_workers = _in_workers(plan)
    with nullcontext() if plan.options.ray is None else _connected(plan, plan.options.ray) as cluster:
        if plan.outdated:
            store.forget(plan.outdated)
        if cluster is not None:
            plan = replace(plan, options=replace(plan.options, workers=cluster.workers))
        elif in_workers:
            warm_up(plan.threads)
        _Run(plan, store, cluster).run(in_workers=in_workers)


def _connected(plan: RunPlan, chosen: RayOptions) -> AbstractContextManager[Cluster]:
    """Connect to the Ray cluster of a run; `connected` has the arguments."""
    from bench.execution.workers.cluster.connect import connected

    return connected(plan, chosen)


def _complete_manifest(plan: RunPlan, store: Store, resumed: Mapping[str, str]) -> None:
    """Write to the manifest what no run of it says: a shard without cells to run, and results taken over.

    Args:
        plan: of the run.
        store: its folder.
        resumed: reasons by label, see `Resumable`.
    """
    manifest, options, told = read_manifest(plan.folder), plan.options, RunRecord()
    if options.whole_shard is not None and not shards_of(manifest.get("runs", [])).get(options.whole_shard):
        told["shard"] = options.whole_shard
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

    def __init__(self, plan: RunPlan, store: Store, cluster: Cluster | None):
        options, pending = plan.options, plan.pending
        self.plan, self.store, self.cluster = plan, store, cluster
        entry = describe_run(plan.threads, options.workers, options.device)
        if options.whole_shard is not None:
            entry["shard"] = options.whole_shard
        self.entries = RunEntries(store, plan.facts, entry)
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
        self.entries.write({title: of for title, of in self.digests.items() if title in softmax})
        stored.add(self.plan.folder, {self.uncertified[title]: certificates[title] for title in certificates})

    def run(self, *, in_workers: bool) -> None:
        """Run the cells, and write the end of the run to the manifest."""
        if in_workers:
            self._in_workers()
        else:
            self._in_this_process()
        self.entries.finish(self.progress.elapsed())

    def _in_workers(self) -> None:
        """Run the cells in worker processes, of this machine or of a cluster."""
        plan, options, run, progress = self.plan, self.options, self.entries.run, self.progress
        memory = self.cluster.memory if self.cluster else options.memory or default_memory(options.workers)
        limits = Limits(plan.time_limit, memory)
        callbacks = PoolCallbacks(
            *(run, self.begin, progress.finished, limits, progress.durations.expected),
            prepared=progress.prepared,
            advanced=progress.advanced,
        )
        settings = WorkerSettings(plan.images, plan.threads, plan.folder, options, run, memory)
        with ExitStack() as stack:
            if self.cluster is None:
                backend: Backend = stack.enter_context(local_processes(settings))
                held = None
            else:
                backend = stack.enter_context(self.cluster.actors(settings, self.entries.of))
                held = stack.enter_context(HeldCells(self.store, run, plan.redo))
            pool = WorkerPool(backend, self.store, callbacks, plan.pending, plan.redo, self.uncertified, held)
            pool.run(options.workers)

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
        run_cells(self.store, plan.pending, runner, self.entries.run, progress.finished, redo=plan.redo)


def _in_workers(plan: RunPlan) -> bool:
    """Return True if cells run in worker processes; refuse limits where they do not."""
    options = plan.options
    if options.loaded and options.ray is not None:
        raise UserError("a model in memory runs in this process; give it as module:Class to run it on a Ray cluster")
    if options.loaded and (options.time_limit is not None or options.memory is not None or options.workers > 1):
        raise UserError("a model in memory runs in this process and without limits; give it as module:Class for more")
    if options.ray is None and not options.workers and (plan.time_limit is not None or options.memory is not None):
        raise UserError("cells that run in this process (workers 0) have no limits; use a worker process, or drop them")
    return options.ray is not None or (options.workers > 0 and not options.loaded)
