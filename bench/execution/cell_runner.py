"""Doing cells: what a process loads for them, and how it shares them with other processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board.board import Board
from bench.evaluation.cost import seconds_since
from bench.evaluation.devices import device_named
from bench.execution.records import failure
from bench.spec.cell import Cell
from bench.store.folder import CellResult, Store
from defenses.utils.errors import UserError, with_context
from defenses.utils.names import is_plugin

if TYPE_CHECKING:
    from bench.execution.options import Options
    from bench.execution.records import Block
    from defenses.core.defense import Defense

CellRecord = dict[str, Any]  # of cells.jsonl
Report = Callable[[str, str, float | None, str | None], None]  # key, status, seconds (None: done elsewhere), note


class CellRunner:
    """What cells need, loaded once a process: data, index lists, defenses."""

    def __init__(self, board: Board, options: Options):
        self.board, self.options = board, options
        self._defenses: dict[str, Defense] = dict(options.loaded)
        self._data: Any = None
        self._positions: list[int] = []
        self._at_work = ""
        self._states: dict[str, str] = {}

    @property
    def _data_root(self) -> Path | None:
        """Where the run, or else the board, says that data sets lie."""
        return self.options.data_root or self.board.data_root

    def data(self) -> Any:
        """The data set of the board."""
        if self._data is None:
            from bench.board.indices import resolve
            from defenses.data.dataset import load_dataset

            self._data = load_dataset(self.board.dataset, self.board.split, root=self._data_root)
            chosen = resolve(
                self.board.indices,
                len(self._data),
                dataset=self._data.name,
                split=self._data.split,
                labels=self._data.y.tolist,
            )
            self._positions = list(chosen.positions)
        return self._data

    def defense(self, cell: Cell) -> Defense:
        """The loaded defense of a cell."""
        if cell.surrogate is None:
            self._make_room(cell.defense.title)
        return self._loaded(cell)

    def surrogate(self, cell: Cell) -> Defense | None:
        """The loaded defense whose view is attacked, where it is not the cell's own."""
        return None if cell.surrogate is None else self._loaded(replace(cell, defense=cell.surrogate, surrogate=None))

    def _loaded(self, cell: Cell) -> Defense:
        label = cell.defense.title
        if label not in self._defenses:
            from bench.evaluation.isolation import preserve_global_state
            from defenses.core.defense import Foreign
            from defenses.utils.parameters import decode
            from defenses.zoo.registry import load_model

            given = decode(cell.defense.given)
            roots = {"weights_root": self.options.weights_root, "data_root": self._data_root}
            with preserve_global_state():
                seed = cell.defense.training_seed
                try:
                    defense = load_model(cell.defense.name, self.board.dataset, training_seed=seed, **roots, **given)
                except UserError as error:
                    raise UserError(f"{self.board.name}: {with_context(label, error)}") from None
            if isinstance(defense, Foreign):
                defense.stochastic = cell.defense.stochastic  # a module of one's own is what its board says
            _check_identity(defense, cell)
            self._defenses[label] = defense
        if label not in self.options.loaded:
            self._defenses[label].to(device_named(self.options.device))
        return self._defenses[label]

    def try_parameters(self, cells: Iterable[Cell]) -> None:
        """Load the registered defenses of cells that are given parameters.

        Raises:
            UserError: some are out of range; the board is read without making its defenses.
        """
        for cell in one_per_defense(cells):
            if cell.defense.given and not is_plugin(cell.defense.name):
                self._loaded(cell)

    def _make_room(self, label: str) -> None:
        """On an accelerator one defense at a time: the others wait in main memory."""
        if self.options.device != "cpu" and label != self._at_work:
            for other in self._defenses.keys() - {label} - self.options.loaded.keys():
                self._defenses[other].to("cpu")
        self._at_work = label

    def check(self, cell: Cell) -> tuple[float, bool]:
        """Load and check the defense of a cell.

        Returns:
            Seconds that the check took, loading apart: they tell slow defenses from fast ones; and whether the defense
            returns probabilities, as the user insists.

        Raises:
            UserError: a model that cannot be benchmarked.
        """
        from bench.evaluation.devices import device_of
        from bench.evaluation.isolation import preserve_global_state
        from bench.evaluation.model_checks import check_model

        data = self.data()
        defense, at = self.defense(cell), self._positions[:8]
        x = data.x[at].to(device_of(defense))
        begin = time.perf_counter()
        with preserve_global_state():
            insisted = cell.defense.title in self.options.probabilities
            softmax = check_model(defense, x, data.num_classes, cell.defense.title, probabilities=insisted)
        return seconds_since(begin), softmax

    def certify(self, cell: Cell) -> CellRecord:
        """Return the gradient certificate of the defense of a cell; see `certificate_of`."""
        from bench.evaluation.certificates.stored import certificate_of
        from bench.evaluation.devices import device_of
        from bench.evaluation.isolation import preserve_global_state

        data, defense = self.data(), self.defense(cell)
        with preserve_global_state():
            return certificate_of(defense, data.x[self._positions[:8]].to(device_of(defense)), cell.defense.title)

    def block(self, cell: Cell) -> Block:
        """The images of a cell."""
        from bench.execution.records import block_of

        return block_of(cell, self.data(), self._positions)

    def execute(self, cell: Cell) -> CellResult:
        """The result of a cell."""
        from bench.evaluation.isolation import preserve_global_state, state
        from bench.execution.run_cell import execute

        block, defense, label = self.block(cell), self.defense(cell), cell.defense.title
        if label not in self._states:
            self._states[label] = state(defense)
        before = self._states[label]
        with preserve_global_state():
            result = execute(cell, defense, block, self.data().num_classes, surrogate=self.surrogate(cell))
        if state(defense) == before:
            return result
        if label not in self.options.loaded:  # the next cell gets the defense as it is deployed
            del self._defenses[label]
        what = "the parameters, buffers or modes of the defense changed while it was attacked and judged"
        return failure(cell, f"{what}; let neither the model nor the attack write to them", None)


def _check_identity(defense: Defense, cell: Cell) -> None:
    """A defense must be the model that the board's fingerprint is of, in every process."""
    known = vars(defense).get("provenance")
    if known is not None and known.fingerprint.get("weights") != cell.defense.fingerprint.get("weights"):
        raise UserError(f"the weights of {cell.defense.title} changed while the board was read; repeat the command")
    state = cell.defense.fingerprint.get("state")
    if state is None:
        same = known is None or _own_states(known.fingerprint) == _own_states(cell.defense.fingerprint)
    else:
        from defenses.utils.identity import identity

        same = identity(defense)[0] == state
    if not same:
        raise UserError(
            f"{cell.defense.title} is another model each time it is built; load its weights, or seed their making"
        )


def _own_states(fingerprint: Mapping[str, Any]) -> list[str | None]:
    """The identities of the parts that are somebody's own."""
    return [part.get("state") for part in fingerprint.get("around", ())]


def one_per_defense(cells: Iterable[Cell]) -> list[Cell]:
    """A cell of each defense."""
    return list({c.defense.title: c for c in cells}.values())


def work(
    store: Store, cells: list[Cell], workshop: CellRunner, run: str, report: Report, *, redo: Mapping[str, CellRecord]
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
                finish(store, cell, workshop.execute, run, report, redo.get(cell.key))
            return mine

    contended = [c for c in cells if not do(c, wait=False)]
    for cell in contended:
        do(cell, wait=True)


def finish(
    store: Store,
    cell: Cell,
    execute: Callable[[Cell], CellResult],
    run: str,
    report: Report,
    before: CellRecord | None,
) -> None:
    """Finish a cell, under its lock. What is stored counts unless it is `before`."""
    known = store.line(cell.key)
    if known is not None and known != before:
        report(cell.key, known["status"], None, known["error"])
        return
    begin = time.perf_counter()
    result = execute(cell)
    result.line["run"] = run
    if known is None or known["status"] != "ok" or result.line["status"] == "ok":  # no failure replaces images judged
        store.save(result)
    note = "; ".join([*filter(None, [result.line["error"]]), *result.line.get("notes", [])]) or None
    report(cell.key, result.line["status"], seconds_since(begin), note)
