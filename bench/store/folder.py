"""Where results live: one folder per board, made of parts that appear whole or not at all.

    <folder>/manifest.json          what was run, on what, by which command
    <folder>/plan.jsonl             the cells of the board, in table order
    <folder>/parts/<part>/          cells.jsonl, records.parquet, draws.parquet, adversarial.safetensors,
                                    checksums.json (sha256 of the others)
    <folder>/tables.{md,csv,tex,html}

A finished cell is a part of its own until `compact` merges the parts of a defense into one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.store.merge import float_columns, merged
from bench.store.parts import (
    ADVERSARIAL,
    CELLS,
    DRAWS,
    RECORDS,
    SUMS,
    Stored,
    attempts,
    identity,
    part_folders,
    read_lines,
    sha256,
    stored,
)
from defenses.utils import files
from defenses.utils.files import NotWritable

__all__ = ["ADVERSARIAL", "CELLS", "DRAWS", "RECORDS", "SUMS", "CellResult", "NotWritable", "Store", "write_atomic"]

_KEPT = "finished cells are kept"


@dataclass
class CellResult:
    """What a cell leaves: its line, columns of records and of draws, and the adversarial images (numpy)."""

    line: dict[str, Any]
    records: dict[str, Any] = field(default_factory=dict)
    draws: dict[str, Any] = field(default_factory=dict)
    adversarial: Any = None


def disk_errors(folder: Path) -> AbstractContextManager[None]:
    """Full disks and missing permissions as one clear line."""
    return files.disk_errors(folder, _KEPT)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash."""
    files.write_whole(path, data, _KEPT)


def _remove(part: Path) -> None:
    """Remove a part so that readers see all of it or nothing."""
    gone = part.with_name(f".gone-{uuid.uuid4().hex}")
    try:
        os.replace(part, gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Store:
    """The results folder of a board, for writing. A folder that only gets read may be read-only.

    Args:
        folder: made when it does not exist; it stays empty until something is stored.

    Raises:
        NotWritable: the folder cannot be made; the methods that write raise it too.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.parts = folder / "parts"
        self._merged: dict[Path, tuple[int, int]] = {}
        self._merged_lines: dict[str, dict[str, Any]] = {}
        try:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # as below /proc
            text = f"cannot write to {folder} ({error.strerror}): choose another folder with --out"
            raise NotWritable(text) from error

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Whether this process now holds the lock `name`; it dies with the process, so none is ever stale."""
        from filelock import FileLock, Timeout

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

    def finished(self, warn: Callable[[str], None] = lambda _: None) -> dict[str, dict[str, Any]]:
        """The lines of all stored cells by key. Damaged parts are removed with a warning, so that they are redone."""

        def drop(part: Path, problem: str) -> None:
            warn(f"{part}: {problem}; its cells will be run again")
            with disk_errors(self.folder):
                _remove(part)

        return {key: line for key, (line, _) in stored(self.parts, drop).items()}

    def line(self, key: str) -> dict[str, Any] | None:
        """The line of a cell, stored by this process or another; whoever calls holds the cell's lock."""
        own = self.parts / f"cell-{key}"
        try:
            return read_lines(own)[0]
        except FileNotFoundError:
            pass  # it was never there, or is merged: then the merged part came before its own one went
        except ValueError:
            return None
        attempts(self._read_merged)
        return self._merged_lines.get(key)

    def _read_merged(self) -> None:
        merged = {p: identity(p) for p in part_folders(self.parts) if p.name.startswith("all-")}
        if merged != self._merged:
            self._merged_lines = {line["key"]: line for part in merged for line in read_lines(part)}
            self._merged = merged

    def save(self, result: CellResult) -> None:
        """Write a cell's part; a part of the same cell is replaced."""
        import pyarrow as pa

        key = result.line["key"]
        self._sweep(f".cell-{key}-*")
        tables = {}
        if result.records:
            tables = {RECORDS: pa.table(result.records), DRAWS: pa.table(result.draws)}
        adversarial = {} if result.adversarial is None else {key: result.adversarial}
        self._write_part(f"cell-{key}", [result.line], tables, adversarial)

    def _write_part(self, name: str, lines: Iterable[dict[str, Any]], tables: dict[str, Any], images: Any) -> None:
        temporary = self.parts / f".{name}-{uuid.uuid4().hex}"
        with disk_errors(self.folder):
            try:
                self.parts.mkdir(exist_ok=True)
                temporary.mkdir()
                text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
                (temporary / CELLS).write_text(text, encoding="utf-8")
                self._write_arrays(temporary, tables, images)
                sums = {p.name: sha256(p) for p in sorted(temporary.iterdir())}
                (temporary / SUMS).write_text(json.dumps(sums, indent=1) + "\n")
                for path in temporary.iterdir():
                    _sync(path)
                final = self.parts / name
                _remove(final)
                os.replace(temporary, final)
                _sync(self.parts)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    @staticmethod
    def _write_arrays(folder: Path, tables: dict[str, Any], images: Any) -> None:
        import pyarrow.parquet as pq
        from safetensors.numpy import save

        for name, table in tables.items():
            floats = float_columns(table.schema)
            others = [c for c in table.column_names if c not in floats and c != "logits"]
            # Logits hardly repeat: split by bytes they pack a fifth smaller.
            options = {"use_dictionary": others, "use_byte_stream_split": floats}
            pq.write_table(table, folder / name, compression="zstd", **options)
        if images:
            (folder / ADVERSARIAL).write_bytes(save(images))  # a full disk is an OSError then

    def _sweep(self, pattern: str) -> None:
        """Remove what killed processes left half-written; whoever calls holds the lock of what `pattern` names."""
        for path in self.parts.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)

    def compact(self, plan: list[dict[str, Any]]) -> None:
        """Merge the parts of each defense into one. New parts appear before old ones go; nothing to do writes nothing.

        Args:
            plan: the lines of the planned cells, for their order. Failed cells stay parts of their own, to be retried.
        """
        order = {line["key"]: i for i, line in enumerate(plan)}
        if not self._to_merge(order) and not any(self.parts.glob(".[ag]*-*")):
            return
        with self.lock("compact", wait=True):
            self._sweep(".all-*")
            self._sweep(".gone-*")
            old = attempts(lambda: {part: identity(part) for part in part_folders(self.parts)})
            merges = self._to_merge(order)
            for name, held in merges.items():
                tables, images = merged(list(held), {k: p for k, (_, p) in held.items()})
                self._write_part(name, [line for line, _ in held.values()], tables, images)
            moved = {key for held in merges.values() for key in held}
            for part in old:  # merged ones go first: what lies beside them is newer
                if part.name not in merges and not moved.isdisjoint(_keys(part)):
                    with suppress(FileNotFoundError), disk_errors(self.folder):
                        if identity(part) == old[part]:  # no retry has replaced it meanwhile
                            _remove(part)

    def _to_merge(self, order: dict[str, int]) -> dict[str, Stored]:
        """By name of the part to write: its cells in order. Nothing for a defense whose one part is up to date."""
        lines = stored(self.parts)
        holders: dict[str, set[str]] = {}
        for part in part_folders(self.parts):
            for key in _keys(part):
                holders.setdefault(key, set()).add(part.name)
        groups: dict[str, list[str]] = {}
        for key in sorted(lines, key=lambda k: (order.get(k, len(order)), k)):
            if lines[key][0]["status"] == "ok":
                groups.setdefault(lines[key][0]["defense"], []).append(key)
        merges = {}
        for defense, keys in groups.items():
            name = part_name(defense, [lines[k][0] for k in keys])
            if set().union(*(holders.get(k, ()) for k in keys)) != {name}:
                merges[name] = {k: lines[k] for k in keys}
        return merges


def part_name(defense: str, lines: list[dict[str, Any]]) -> str:
    """The folder of a defense's merged part: readable, safe as a file name, and different for other contents."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in defense)[:40]
    contents = "/".join([defense, *(f"{line['key']} {line.get('run')}" for line in lines)])
    return f"all-{safe}-{hashlib.sha256(contents.encode()).hexdigest()[:8]}"


def _keys(part: Path) -> set[str]:
    """The cells that a part holds; none when it is damaged or gone."""
    try:
        return {line["key"] for line in read_lines(part)}
    except (FileNotFoundError, ValueError):
        return set()
