"""Doing cells: what a process loads for them, and how it shares them with other processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bench.board import Board
from bench.cell import Cell
from bench.store import Store
from defenses.errors import UserError

if TYPE_CHECKING:
    import torch

    from bench.run import Options
    from defenses.base import Defense

Line = dict[str, Any]  # of cells.jsonl
Report = Callable[[str, str, float | None, str | None], None]  # key, status, seconds (None: done elsewhere), note


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
            _check_identity(defense, cell)
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


def _check_identity(defense: Defense, cell: Cell) -> None:
    """A plug-in must be the model that the board's fingerprint is of, in every process."""
    state = cell.defense.fingerprint.get("state")
    if state is None:
        return
    from defenses.identity import identity

    if identity(defense)[0] != state:
        raise UserError(
            f"{cell.defense.label} is another model each time it is built; load its weights, or seed their making"
        )


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'device "{name}" cannot be used: {str(error).splitlines()[0]}; try --device cpu') from None
    return device


def work(
    store: Store, cells: list[Cell], workshop: Workshop, run: str, report: Report, *, redo: Mapping[str, Line]
) -> None:
    """Do all cells that nobody else does; then wait for the others', and do those that they left.

    Args:
        store: where results go.
        cells: what to do.
        workshop: what it takes.
        run: id of the run.
        report: is told every cell that is finished.
        redo: by key, the records that do not count as finished.
    """
    import torch

    torch.set_num_threads(workshop.board.threads)

    def do(cell: Cell, *, wait: bool) -> bool:
        with store.lock(cell.key, wait=wait) as mine:
            if mine:
                _do(store, cell, workshop, run, report, redo.get(cell.key))
            return mine

    contended = [c for c in cells if not do(c, wait=False)]
    for cell in contended:
        do(cell, wait=True)


def _do(store: Store, cell: Cell, workshop: Workshop, run: str, report: Report, before: Line | None) -> None:
    """Finish a cell, under its lock. What is stored counts unless it is `before`."""
    known = store.line(cell.key)
    if known is not None and known != before:
        report(cell.key, known["status"], None, known["error"])
        return
    begin = time.perf_counter()
    result = workshop.execute(cell)
    result.line["run"] = run
    if known is None or known["status"] != "ok" or result.line["status"] == "ok":  # no failure replaces images judged
        store.save(result)
    report(cell.key, result.line["status"], time.perf_counter() - begin, result.line["error"])
