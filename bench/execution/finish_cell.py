"""The end of a cell: its result is stored, and reported."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.evaluation.cost import seconds_since
from bench.spec.cell import Cell
from bench.store.folder import CellResult, Store
from bench.store.parts import CellRecord


@dataclass(frozen=True)
class CellReport:
    """The end of a cell, for the progress.

    Args:
        key: of the cell.
        status: "ok", "error" or "unsupported".
        seconds: time that it took; None: another process ran it, so that it does not count in the forecast.
        note: one line for the user.
    """

    key: str
    status: str
    seconds: float | None
    note: str | None


Report = Callable[[CellReport], None]
Advanced = Callable[[str, float], None]  # of a running cell, by key, the share that is done


def finish(
    store: Store,
    cell: Cell,
    execute: Callable[[Cell], CellResult],
    run: str,
    superseded: CellRecord | None,
) -> CellReport:
    """Run a cell, store its result and report it, unless another process has; the caller holds the cell's lock.

    Args:
        store: where results go.
        cell: the cell.
        execute: makes the result.
        run: id of the run.
        superseded: a stored record that does not count as finished; None: any stored record counts.
    """
    stored = store.cell_record(cell.key)
    if stored is not None and stored != superseded:
        return report_of(stored)
    begin = time.perf_counter()
    report = keep(store, execute(cell), stored, run)
    return replace(report, seconds=seconds_since(begin))


def report_of(stored: CellRecord) -> CellReport:
    """Return the report of a cell that another process ran, from its record."""
    return CellReport(stored["key"], stored["status"], None, stored["error"])


def keep(store: Store, result: CellResult, earlier: CellRecord | None, run: str) -> CellReport:
    """Store the result of a cell and report it, without its time; the caller holds the cell's lock.

    Args:
        store: where results go.
        result: of the cell.
        earlier: the record that the store has of the cell; None: it has none.
        run: id of the run.
    """
    result.line["run"] = run
    # A failure does not replace a result with judged images.
    if earlier is None or earlier["status"] != "ok" or result.line["status"] == "ok":
        store.save(result)
    note = "; ".join([*filter(None, [result.line["error"]]), *result.line.get("notes", [])]) or None
    return CellReport(result.line["key"], result.line["status"], None, note)
