"""Run cells in one process, which other processes may share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bench.attacks.registry import user_code
from bench.board.board import BoardImages
from bench.board.indices import resolve
from bench.evaluation.certificates.certificate import CertificateRecord
from bench.evaluation.cost import seconds_since
from bench.execution.finish_cell import Advanced, Report, finish
from bench.execution.sources import Sources
from bench.spec.cell import Cell
from bench.store.folder import CellResult, Store
from bench.store.parts import CellRecord
from defenses.data.dataset import load_dataset
from defenses.data.pictures import UnreadableImage
from defenses.utils.errors import UserError
from defenses.utils.names import is_plugin
from defenses.utils.parameters import decode
from defenses.utils.reads import running
from defenses.utils.replacements import made_of, noting_replacements, refuse_replaced
from defenses.zoo.composition import plugins_of

if TYPE_CHECKING:
    from torch import Tensor

    from bench.evaluation.steadiness import Reference
    from bench.execution.options import Options
    from bench.execution.records import Block
    from defenses.core.defense import Defense
    from defenses.data.dataset import Dataset


_CHECKED = 8  # images on which a defense is checked


class CellRunner:
    """The data and defenses of a board, loaded once a process, on which its cells run.

    Args:
        images: of the board.
        options: options of the run.
        advanced: called when a cell begins, with 0, and then at most once a second.
    """

    def __init__(self, images: BoardImages, options: Options, advanced: Advanced = lambda *_: None):
        self.images, self.options = images._replace(root=options.data_root or images.root), options
        self._advanced = advanced
        self._defenses: dict[str, Defense] = dict(options.loaded)
        self._data: Dataset | None = None
        self._positions: list[int] = []
        self._first: Tensor | None = None
        self._active = ""  # title of the defense on the accelerator
        self._states: dict[str, str] = {}  # by title, the state of a defense before its first cell
        self._references: dict[str, Reference] = {}  # by title

    def data(self) -> Dataset:
        """Return the data set of the board, loaded at the first call."""
        if self._data is None:
            data = load_dataset(self.images.dataset, self.images.split, root=self.images.root)
            size, labels = len(data), data.y.tolist
            chosen = resolve(self.images.indices, size, dataset=data.name, split=data.split, labels=labels)
            self._data, self._positions = data, list(chosen.positions)
        return self._data

    def defense(self, cell: Cell) -> Defense:
        """Return the loaded defense of a cell."""
        if cell.surrogate is None:
            self._make_room(cell.defense.title)
        defense, title = self._load(cell), cell.defense.title
        if title not in self.options.loaded:
            refuse_beside(cell)
        if title not in self._references:
            from bench.evaluation.isolation import preserve_global_state
            from bench.evaluation.steadiness import Reference

            with preserve_global_state(), _noting(cell):  # it is called here for the first time
                self._references[title] = Reference(defense, self._first_images())
        return defense

    def surrogate(self, cell: Cell) -> Defense | None:
        """Return the loaded surrogate of a cell, whose view is attacked; None without one."""
        return None if cell.surrogate is None else self._load(replace(cell, defense=cell.surrogate, surrogate=None))

    def _load(self, cell: Cell) -> Defense:
        title = cell.defense.title
        if title not in self.options.loaded:
            from bench.execution.loading import load_defense
            from defenses.utils.devices import device_named

            if title not in self._defenses:
                self._defenses[title] = load_defense(cell, self.images, self.options.weights_root)
            self._defenses[title].to(device_named(self.options.device))
        return self._defenses[title]

    def try_parameters(self, cells: Iterable[Cell]) -> None:
        """Load the registered defenses that have parameters, which the board does not check.

        Args:
            cells: cells of the board.

        Raises:
            UserError: a parameter is out of range.
        """
        for cell in one_per_defense(cells):
            if cell.defense.params and not is_plugin(cell.defense.name):
                self._load(cell)

    def _make_room(self, title: str) -> None:
        """Move all other defenses from an accelerator to main memory."""
        if self.options.device != "cpu" and title != self._active:
            for other in self._defenses.keys() - {title} - self.options.loaded.keys():
                self._defenses[other].to("cpu")
        self._active = title

    def check(self, cell: Cell) -> tuple[float, bool]:
        """Load and check the defense of a cell.

        Returns:
            Seconds that the check took, without loading, and whether the defense returns probabilities.

        Raises:
            UserError: a model that cannot be benchmarked.
        """
        from bench.evaluation.model_checks import check_model

        defense, x, title = self.defense(cell), self._first_images(), cell.defense.title
        accepted, begin = title in self.options.probabilities, time.perf_counter()
        softmax = check_model(defense, x, self.data().num_classes, title, probabilities=accepted)
        return seconds_since(begin), softmax

    def certify(self, cell: Cell) -> CertificateRecord:
        """Return the gradient certificate of the defense of a cell, with the user's code and files that it is of."""
        from bench.execution.loading import certify_defense

        with running():
            certificate = certify_defense(self.defense(cell), self._first_images(), cell.defense.title)
        sources = Sources().of_defense(cell.defense)
        return certificate | ({"sources": sources} if sources else {})

    def _first_images(self) -> Tensor:
        """Return the first readable images of the index list, float32 [B, C, H, W]."""
        if self._first is None:
            data = self.data()
            self._first = data.first(_CHECKED, self._positions)
        return self._first

    def block(self, cell: Cell) -> Block:
        """Return the images of a cell.

        Raises:
            UnreadableImage: one of them cannot be decoded.
            UserError: the data set has changed since the board was read.
        """
        from bench.execution.records import block_of

        data = self.data()
        if data.revision != cell.data.revision:
            raise UserError(
                f"{data.name} changed while the board ran; leave its files as they are, and repeat the command"
            )
        return block_of(cell, data, self._positions)

    def execute(self, cell: Cell) -> CellResult:
        """Run a cell; a defense that changes during it is a failure. The result lists the user's code and files."""
        of_user = user_code(cell.attack.name)
        with running(), noting_replacements(of_user) if of_user else nullcontext():
            result = self._execute(cell)
        if cell.defense.title not in self.options.loaded:
            refuse_beside(cell)
        if sources := Sources().of(cell):
            result.line["sources"] = sources
        return result

    def _execute(self, cell: Cell) -> CellResult:
        from bench.evaluation.isolation import preserve_global_state, state
        from bench.execution.attack_and_judge import execute

        try:
            block = self.block(cell)
        except UnreadableImage as error:
            return CellResult.failure(cell, str(error), None)
        defense, title = self.defense(cell), cell.defense.title
        self._advanced(cell.key, 0.0)
        with preserve_global_state():
            if title not in self._states:
                self._states[title] = state(defense)
            before = self._states[title]
            surrogate, advance = self.surrogate(cell), partial(self._advanced, cell.key)
            result = execute(cell, defense, block, self.data().num_classes, surrogate=surrogate, advance=advance)
            problem = self._references[title].problem(defense) if result.line["status"] == "ok" else ""
        if state(defense) == before:
            return CellResult.failure(cell, problem, None) if problem else result
        if title not in self.options.loaded:
            del self._defenses[title], self._references[title]  # the next cell loads it again
        changed = "the parameters, buffers or modes of the defense changed while it was attacked and judged"
        return CellResult.failure(cell, f"{changed}; let neither the model nor the attack write to them", None)


def _noting(cell: Cell) -> AbstractContextManager[None]:
    """Take note of what the defense of a cell replaces when it is called."""
    plugins, made = _code(cell)
    return noting_replacements(plugins[0], made) if plugins else nullcontext()


def _code(cell: Cell) -> tuple[list[str], str]:
    """Return the plug-ins of the defense of a cell, and what its making counts as."""
    name, params = cell.defense.name, decode(cell.defense.params)
    return plugins_of(name, params), made_of(name, params, cell.defense.training_seed)


def refuse_beside(cell: Cell) -> None:
    """Refuse a cell if other code than that of its defense has replaced something of a library in this process.

    Raises:
        UserError: it has.
    """
    refuse_replaced(*_code(cell))


def one_per_defense(cells: Iterable[Cell]) -> list[Cell]:
    """Return a cell of each defense."""
    return list({c.defense.title: c for c in cells}.values())


def run_cells(
    store: Store, cells: Sequence[Cell], runner: CellRunner, run: str, report: Report, *, redo: Mapping[str, CellRecord]
) -> None:
    """Run all cells that no other process runs; then wait for the others', and run those left unfinished.

    Args:
        store: where results go.
        cells: cells to run.
        runner: runs them.
        run: id of the run.
        report: called after every cell.
        redo: by key, the records that do not count as finished.
    """

    def run_cell(cell: Cell, *, wait: bool) -> bool:
        with store.lock(cell.key, wait=wait) as acquired:
            if acquired:
                report(finish(store, cell, runner.execute, run, redo.get(cell.key)))
            return acquired

    contended = [c for c in cells if not run_cell(c, wait=False)]
    for cell in contended:
        run_cell(cell, wait=True)
