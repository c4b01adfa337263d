"""Cells that a pool locks and stores itself, as its workers share no results folder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from bench.execution.finish_cell import CellReport, keep, report_of
from bench.spec.cell import Cell
from bench.store.folder import CellResult, Store
from bench.store.parts import CellRecord


class HeldCells:
    """The cells whose locks this process holds while workers elsewhere run them; a context, which releases all.

    Args:
        store: where results go.
        run: id of the run, for results that name none.
        redo: by key, the records that do not count as finished.
    """

    def __init__(self, store: Store, run: str, redo: Mapping[str, CellRecord]):
        self._store, self._run, self._redo = store, run, redo
        self._held: dict[str, tuple[ExitStack, CellRecord | None]] = {}

    def __enter__(self) -> HeldCells:
        return self

    def __exit__(self, *of_error: object) -> None:
        for lock, _ in self._held.values():
            lock.close()
        self._held.clear()

    def hold(self, cell: Cell) -> CellReport | bool:
        """Lock a cell until it is kept.

        Returns:
            True; False if another process holds it; a report if another process has stored it.
        """
        with ExitStack() as lock:
            if not lock.enter_context(self._store.lock(cell.key)):
                return False
            stored = self._store.cell_record(cell.key)
            if stored is not None and stored != self._redo.get(cell.key):
                return report_of(stored)
            self._held[cell.key] = lock.pop_all(), stored
        return True

    def keep(self, cell: Cell, result: CellResult) -> CellReport:
        """Store the result of a cell that is held, release it, and return its report, without its time."""
        lock, stored = self._held.pop(cell.key)
        with lock:
            return keep(self._store, result, stored, result.line.get("run", self._run))
