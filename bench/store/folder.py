"""Write the results folder of a board, whose parts appear whole or not at all.

    <folder>/manifest.json          what was run, on what, by which command
    <folder>/plan.jsonl             the cells of the board, in table order
    <folder>/parts/<part>/          cells.jsonl, records.parquet, draws.parquet, adversarial.safetensors,
                                    checksums.json (sha256 of the others)
    <folder>/tables.{md,csv,tex,html}
    <folder>/.locks/                files by which processes take turns

Each finished cell is written as a part; `compact` merges the parts of a defense into one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock, Timeout

from bench.store.merged_lines import MergedLines
from bench.store.parts import (
    CELLS,
    KEPT,
    SUMS,
    CellRecord,
    Stored,
    attempts,
    by_defense,
    identity,
    part_folders,
    part_name,
    read_lines,
    remove_part,
    sha256,
    stored,
)
from defenses.utils import files
from defenses.utils.files import NotWritable, sync

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bench.spec.cell import Cell
    from bench.spec.cell_columns import CellColumns

__all__ = ["CellResult", "NotWritable", "Store", "write_atomic"]


@dataclass
class CellResult:
    """The result of a cell.

    Args:
        line: its line of cells.jsonl.
        records: columns of records.parquet; empty: no image was judged.
        draws: columns of draws.parquet.
        adversarial: images as a numpy array, float32 [B, C, H, W]; None: none.
        out_of_memory: the cell failed as memory ran out; not stored.
    """

    line: CellRecord
    records: dict[str, Any] = field(default_factory=dict)
    draws: dict[str, Any] = field(default_factory=dict)
    adversarial: npt.NDArray[np.float32] | None = None
    out_of_memory: bool = False

    @classmethod
    def failure(cls, cell: Cell, message: str, trace: str | None) -> CellResult:
        """Return the result of a cell that failed.

        Args:
            cell: the cell.
            message: one line, for tables.
            trace: traceback; None: there is none.
        """
        line = cast("CellRecord", cell.columns())
        line.update({"status": "error", "error": message, "identity": cell.identity(), "traceback": trace})
        return cls(line)


def disk_errors(folder: Path) -> AbstractContextManager[None]:
    """Turn errors of full disks and missing permissions into a `NotWritable` of one line."""
    return files.disk_errors(folder, KEPT)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file whole or not at all, also on a crash."""
    files.write_whole(path, data, KEPT)


class Store:
    """A results folder, for writing.

    Args:
        folder: created where it does not exist; it may be read-only as long as nothing is written.

    Raises:
        NotWritable: the folder cannot be created; the methods that write raise it too.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.parts = folder / "parts"
        self._merged = MergedLines(folder)
        try:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # as below /proc
            text = f"cannot write to {folder} ({error.strerror}): choose another folder with --out"
            raise NotWritable(text) from error

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Acquire a lock, which the end of the process releases too.

        Args:
            name: name of the lock.
            wait: wait while another process holds it.

        Yields:
            True if this process holds it.
        """
        folder = self.folder / ".locks"
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
        lock = FileLock(folder / f"{name}.lock", timeout=-1 if wait else 0)
        try:
            with disk_errors(folder):
                lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def finished(self, warn: Callable[[str], None] = lambda _: None) -> dict[str, CellRecord]:
        """Return the lines of all stored cells by key; remove damaged parts with a warning, so that they are redone."""

        def remove(part: Path, problem: str) -> None:
            warn(f"{part}: {problem}; its cells will be run again")
            with disk_errors(self.folder):
                remove_part(part)

        return {key: line for key, (line, _) in stored(self.parts, remove).items()}

    def cell_record(self, key: str) -> CellRecord | None:
        """Return the record of a cell, stored by any process; the caller holds the cell's lock."""
        try:
            return read_lines(self.parts / f"cell-{key}")[0]
        except FileNotFoundError:
            pass  # not run, or merged: a merged part appears before the cell's part goes
        except ValueError:
            return None
        return attempts(self._merged.read).get(key)

    def save(self, result: CellResult) -> None:
        """Write a cell's part, which replaces an earlier one; the caller holds the cell's lock."""
        from bench.store.arrays import CellImages, tables_of

        key = result.line["key"]
        images = {} if result.adversarial is None else {key: CellImages.of(result.adversarial)}
        self._write_part(f"cell-{key}", [result.line], tables_of(result.records, result.draws), images)

    def forget(self, outdated: Mapping[str, CellRecord]) -> None:
        """Remove the results of cells, by key, that no other process has replaced since they were read."""
        from bench.store.arrays import merged

        with self.lock("compact", wait=True):
            for part in part_folders(self.parts):
                try:
                    before, lines = identity(part), read_lines(part)
                except (FileNotFoundError, ValueError):  # replaced at this moment, or damaged: nothing of it counts
                    continue
                rest = [line for line in lines if outdated.get(line["key"]) != line]
                if len(rest) == len(lines):
                    continue
                if rest:
                    keys = [line["key"] for line in rest]
                    tables, images = merged(keys, dict.fromkeys(keys, part))
                    self._write_part(part_name(rest[0]["defense"], rest), rest, tables, images)
                with suppress(FileNotFoundError), disk_errors(self.folder):
                    if identity(part) == before:
                        remove_part(part)
            self._merged.mark()

    def _write_part(self, name: str, lines: Iterable[CellRecord], tables: dict[str, Any], images: Any) -> None:
        from bench.store.arrays import write_arrays

        temporary = self.parts / f".{name}-new"  # of one process, which holds a lock
        with disk_errors(self.folder):
            try:
                shutil.rmtree(temporary, ignore_errors=True)  # left half-written by a process that was killed
                temporary.mkdir(parents=True)
                text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
                (temporary / CELLS).write_text(text, encoding="utf-8")
                write_arrays(temporary, tables, images)
                sums = {p.name: sha256(p) for p in sorted(temporary.iterdir())}
                (temporary / SUMS).write_text(json.dumps(sums, indent=1) + "\n")
                for path in temporary.iterdir():
                    sync(path)
                final = self.parts / name
                remove_part(final)
                os.replace(temporary, final)
                sync(self.parts)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _sweep(self, pattern: str) -> None:
        """Remove parts that killed processes left half-written; the caller holds the lock of the names in `pattern`."""
        for path in self.parts.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)

    def compact(self, plan: Sequence[CellColumns]) -> None:
        """Merge the parts of each defense into one, where that changes anything.

        New parts appear before old ones go. Failed cells are not merged, so that they can be retried.

        Args:
            plan: `Cell.columns()` of the planned cells, in table order.
        """
        order = {line["key"]: i for i, line in enumerate(plan)}
        if not self._to_merge(order) and not any(self.parts.glob(".[ag]*-*")):
            return
        with self.lock("compact", wait=True):
            self._sweep(".all-*")
            self._sweep(".gone-*")
            old = attempts(lambda: {part: identity(part) for part in part_folders(self.parts)})
            merges = self._to_merge(order)
            for name, cells in merges.items():
                attempts(partial(self._write_merged, name, cells))
            self._merged.mark()
            moved = {key for cells in merges.values() for key in cells}
            for part in old:  # merged parts first: cell parts are newer
                if part.name not in merges and not moved.isdisjoint(_keys(part)):
                    with suppress(FileNotFoundError), disk_errors(self.folder):
                        if identity(part) == old[part]:  # not replaced by a retry meanwhile
                            remove_part(part)
            self._merged.mark()  # those that are gone were there at the first

    def _to_merge(self, order: dict[str, int]) -> dict[str, Stored]:
        """Return the cells of each part to write, in order, by name of the part; no part that is up to date."""
        lines = stored(self.parts)
        holders: dict[str, set[str]] = {}
        for part in part_folders(self.parts):
            for key in _keys(part):
                holders.setdefault(key, set()).add(part.name)
        found = by_defense(lines, order)
        return {n: cells for n, cells in found.items() if any(holders.get(key) != {n} for key in cells)}

    def take(self, cells: Stored, plan: Sequence[CellColumns]) -> None:
        """Write cells of other folders, as `compact` leaves them: a part for each defense, and one a failed cell.

        Args:
            cells: lines, and the parts that hold them.
            plan: see `compact`.
        """
        for name, of_defense in by_defense(cells, {line["key"]: i for i, line in enumerate(plan)}).items():
            self._write_merged(name, of_defense)
        for key, (line, _) in cells.items():
            if line["status"] != "ok":
                self._write_part(f"cell-{key}", [line], {}, {})

    def _write_merged(self, name: str, cells: Stored) -> None:
        from bench.store.arrays import merged

        tables, images = merged(list(cells), {k: p for k, (_, p) in cells.items()})
        self._write_part(name, [line for line, _ in cells.values()], tables, images)


def _keys(part: Path) -> set[str]:
    """Return the keys of the cells in a part; none where it is damaged or gone."""
    try:
        return {line["key"] for line in read_lines(part)}
    except (FileNotFoundError, ValueError):
        return set()
