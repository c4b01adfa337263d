"""Run a board: what is finished is skipped, every cell is done once, by one process or by several."""

from __future__ import annotations

import json
import multiprocessing
import queue
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board import Board
from bench.cell import NULLS, Cell
from bench.manifest import describe_run, update_manifest
from bench.progress import Progress
from bench.store import Store, write_atomic
from defenses.errors import UserError, unknown

if TYPE_CHECKING:
    import torch

    from defenses.base import Defense

Report = Callable[[str, str, float, str | None], None]  # key, status, seconds, note


@dataclass(frozen=True)
class Options:
    """How a board is run; none of it changes a result.

    Args:
        data_root: where data sets lie.
        weights_root: where weights are looked for first.
        workers: processes.
        device: where models run, as "cuda:0"; results of other devices agree in counts, not in bits.
        defenses: labels to run; empty: all.
        attacks: labels to run; empty: all.
        retry_errors: run cells again whose record is an error.
        quiet: no progress.
        loaded: defenses in memory by label (one worker only).
    """

    data_root: Path | None = None
    weights_root: Path | None = None
    workers: int = 1
    device: str = "cpu"
    defenses: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    retry_errors: bool = False
    quiet: bool = False
    loaded: Mapping[str, Defense] = field(default_factory=dict)


def run_board(board: Board, folder: Path, options: Options) -> list[str]:
    """Run what is not finished, then bring tables and manifest up to date.

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
    store = Store(folder)
    _write_plan(store, cells)
    finished = store.finished(warn=lambda text: print(f"warning: {text}", file=sys.stderr))
    chosen = select(cells, options)
    failed = {k for k, line in finished.items() if line["status"] == "error"}
    if options.retry_errors:
        store.drop(failed)
        finished = {k: line for k, line in finished.items() if k not in failed}
    pending = [c for c in chosen if c.key not in finished]
    if pending:
        _run_pending(board, store, pending, options)
        finished = store.finished()
    with store.lock("compact") as mine:
        if mine:
            store.compact([c.columns() for c in cells])
    planned = [finished[c.key] for c in cells if c.key in finished]
    return [f"{_name(line)}: {line['error']}" for line in planned if line["error"] and line["status"] != "unsupported"]


def _name(line: Mapping[str, Any]) -> str:
    last = line["block"] + line["images"] - 1
    return f"{line['defense']} | {line['attack']} | {line['view']} | images {line['block']}-{last}"


def _write_plan(store: Store, cells: Iterable[Cell]) -> None:
    text = "".join(json.dumps(c.columns(), sort_keys=True) + "\n" for c in cells)
    path = store.folder / "plan.jsonl"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, text)


def select(cells: list[Cell], options: Options) -> list[Cell]:
    """The cells of the defenses and attacks asked for; null attacks always come along."""
    for kind, asked in (("defense", options.defenses), ("attack", options.attacks)):
        names = {getattr(c, kind).label for c in cells}
        for name in asked:
            if name not in names:
                raise unknown(f"{kind} in this board", name, names)
    kept = [c for c in cells if not options.defenses or c.defense.label in options.defenses]
    return [c for c in kept if not options.attacks or c.attack.label in (*options.attacks, *NULLS)]


def _run_pending(board: Board, store: Store, pending: list[Cell], options: Options) -> None:
    run = describe_run(board, options.workers, options.device)
    update_manifest(store, board, run)
    progress = Progress(pending, workers=options.workers, quiet=options.quiet)
    by_key = {c.key: c for c in pending}

    def report(key: str, status: str, seconds: float, note: str | None) -> None:
        progress.finished(by_key[key], status, seconds, note)

    workshop = Workshop(board, options)
    workshop.check(pending)  # bad models stop the run before any work is done
    if options.workers == 1:
        work(store, pending, workshop, run["id"], report)
    else:
        _run_workers(board, store, pending, options, run["id"], report)
    run["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    run["seconds"] = round(progress.elapsed(), 3)
    update_manifest(store, board, run)


class Workshop:
    """What cells need, loaded once a process: data, index lists, defenses."""

    def __init__(self, board: Board, options: Options):
        self.board, self.options = board, options
        self._defenses: dict[str, Defense] = dict(options.loaded)
        self._data: Any = None
        self._positions: list[int] = []

    def data(self) -> Any:
        """The data set of the board."""
        if self._data is None:
            from bench.data import load_dataset
            from bench.indices import resolve

            self._data = load_dataset(self.board.dataset, self.board.split, root=self.options.data_root)
            self._positions = list(resolve(self.board.indices, len(self._data)).positions)
        return self._data

    def defense(self, cell: Cell) -> Defense:
        """The loaded defense of a cell."""
        label = cell.defense.label
        if label not in self._defenses:
            from defenses.registry import decode, load_model

            given = decode(cell.defense.given)
            name, root = cell.defense.name, self.options.weights_root
            defense = load_model(name, self.board.dataset, weights_root=root, **given)
            defense.stochastic = cell.defense.stochastic  # a module of one's own is what its board says
            self._defenses[label] = defense.to(_device(self.options.device))
        return self._defenses[label]

    def check(self, cells: list[Cell]) -> None:
        """Load and check every defense once.

        Raises:
            UserError: a model that cannot be benchmarked.
        """
        from bench.checks import check_model
        from bench.view import device_of

        data = self.data()
        for cell in {c.defense.label: c for c in cells}.values():
            defense, at = self.defense(cell), self._positions[:8]
            check_model(defense, data.x[at].to(device_of(defense)), data.num_classes, cell.defense.label)

    def execute(self, cell: Cell) -> Any:
        """The result of a cell."""
        from bench.execute import block_of, execute

        data = self.data()
        return execute(cell, self.defense(cell), block_of(cell, data, self._positions), data.num_classes)


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'device "{name}" cannot be used: {str(error).splitlines()[0]}; try --device cpu') from None
    return device


def work(store: Store, cells: list[Cell], workshop: Workshop, run: str, report: Report) -> None:
    """Do all cells that nobody else does; then wait for the others', and do those that they left."""
    import torch

    torch.set_num_threads(workshop.board.threads)
    contended = [c for c in cells if not _do(store, c, workshop, run, report, wait=False)]
    for cell in contended:
        _do(store, cell, workshop, run, report, wait=True)


def _do(store: Store, cell: Cell, workshop: Workshop, run: str, report: Report, *, wait: bool) -> bool:
    """Whether the cell is finished now; False when another process is at it."""
    with store.lock(cell.key, wait=wait) as mine:
        if not mine:
            return False
        if store.has(cell.key):
            report(cell.key, "ok", 0.0, None)
            return True
        begin = time.perf_counter()
        result = workshop.execute(cell)
        result.line["run"] = run
        store.save(result)
        report(cell.key, result.line["status"], time.perf_counter() - begin, result.line["error"])
        return True


def _run_workers(
    board: Board, store: Store, pending: list[Cell], options: Options, run: str, report: Report
) -> None:
    if options.loaded:
        raise UserError("a model in memory runs with workers=1; give it as module:Class for more")
    context = multiprocessing.get_context("spawn")
    channel: Any = context.Queue()
    workers = [
        context.Process(target=_worker, args=(board, store.folder, pending, options, run, channel), daemon=True)
        for _ in range(min(options.workers, len(pending)))
    ]
    for worker in workers:
        worker.start()
    try:
        for message in _messages(channel, workers):
            if isinstance(message, UserError):
                raise message
            report(*message)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
    dead = [w.exitcode for w in workers if w.exitcode not in (0, -15)]
    if dead:
        raise UserError(f"a worker process died (exit code {dead[0]}); finished cells are kept, repeat the command")


def _messages(channel: Any, workers: list[Any]) -> Iterator[Any]:
    """What the workers say, until all are gone and nothing is left to hear."""
    while True:
        try:
            yield channel.get(timeout=0.5)
        except queue.Empty:
            if not any(w.is_alive() for w in workers):
                return


def _worker(board: Board, folder: Path, cells: list[Cell], options: Options, run: str, channel: Any) -> None:
    def report(key: str, status: str, seconds: float, note: str | None) -> None:
        channel.put((key, status, seconds, note))

    try:
        work(Store(folder), cells, Workshop(board, options), run, report)
    except UserError as error:
        channel.put(error)
    except KeyboardInterrupt:
        sys.exit(130)
