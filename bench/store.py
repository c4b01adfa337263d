"""Where results live: one folder per board, made of parts that appear whole or not at all.

    <folder>/manifest.json          what was run, on what, by which command
    <folder>/plan.jsonl             the cells of the board, in table order
    <folder>/parts/<part>/          cells.jsonl, records.parquet, draws.parquet, adversarial.safetensors,
                                    checksums.json (sha256 of the others)
    <folder>/tables.{md,csv,tex,html}

A finished cell is a part of its own until `compact` merges the parts of a defense into one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from defenses.errors import UserError

RECORDS, DRAWS, ADVERSARIAL, CELLS, SUMS = (
    "records.parquet",
    "draws.parquet",
    "adversarial.safetensors",
    "cells.jsonl",
    "checksums.json",
)


@dataclass
class CellResult:
    """What a cell leaves: its line, columns of records and of draws, and the adversarial images (numpy)."""

    line: dict[str, Any]
    records: dict[str, Any] = field(default_factory=dict)
    draws: dict[str, Any] = field(default_factory=dict)
    adversarial: Any = None


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Full disks and missing permissions as one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left for {folder}: free some and repeat; finished cells are kept") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(f"cannot write to {folder} ({error.strerror}): choose another folder with --out") from error
        raise


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    raw = data.encode("utf-8") if isinstance(data, str) else data
    with disk_errors(path.parent):
        try:
            with open(temporary, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """The results folder of a board, for writing.

    Args:
        folder: made when it does not exist.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.parts = folder / "parts"
        self._merged: set[Path] = set()
        self._merged_keys: set[str] = set()
        with disk_errors(folder):
            self.parts.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Whether this process now holds the lock `name`; it dies with the process, so none is ever stale."""
        from filelock import FileLock, Timeout

        folder = self.folder / ".locks"
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
        lock = FileLock(folder / f"{name}.lock", timeout=-1 if wait else 0)
        try:
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
        lines: dict[str, dict[str, Any]] = {}
        for part in self._stored():
            problem = damage(part)
            if problem:
                warn(f"{part}: {problem}; its cells will be run again")
                _remove(part)
                continue
            for line in read_lines(part):
                lines.setdefault(line["key"], line)
        return lines

    def has(self, key: str) -> bool:
        """Whether a cell is stored, by this process or another."""
        if (self.parts / f"cell-{key}").is_dir():
            return True
        merged = set(self.parts.glob("all-*"))
        if merged != self._merged:
            self._merged = merged
            self._merged_keys = {line["key"] for part in merged for line in read_lines(part)}
        return key in self._merged_keys

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
                temporary.mkdir()
                text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
                (temporary / CELLS).write_text(text, encoding="utf-8")
                self._write_arrays(temporary, tables, images)
                sums = {p.name: _sha256(p) for p in sorted(temporary.iterdir())}
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
        from safetensors.numpy import save_file

        for name, table in tables.items():
            floats = _float_columns(table.schema)
            others = [c for c in table.column_names if c not in floats and c != "logits"]
            # Logits hardly repeat: split by bytes they pack a fifth smaller.
            options = {"use_dictionary": others, "use_byte_stream_split": floats}
            pq.write_table(table, folder / name, compression="zstd", **options)
        if images:
            save_file(images, str(folder / ADVERSARIAL))

    def drop(self, keys: set[str]) -> None:
        """Forget cells that have parts of their own (to run them again)."""
        for key in keys:
            _remove(self.parts / f"cell-{key}")

    def _sweep(self, pattern: str) -> None:
        """Remove what killed processes left half-written; whoever calls holds the lock of what `pattern` names."""
        for path in self.parts.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)

    def compact(self, plan: list[dict[str, Any]]) -> None:
        """Merge the parts of each defense into one. The new part appears before the old ones go.

        Args:
            plan: the lines of the planned cells, for their order. Failed cells stay parts of their own, to be retried.
        """
        self._sweep(".all-*")
        self._sweep(".gone-*")
        order = {line["key"]: i for i, line in enumerate(plan)}
        lines: dict[str, tuple[dict[str, Any], Path]] = {}
        for part in self._stored():
            lines.update({line["key"]: (line, part) for line in read_lines(part)})
        groups: dict[str, list[str]] = {}
        for key, (line, _) in lines.items():
            if line["status"] == "ok":
                groups.setdefault(line["defense"], []).append(key)
        for defense, keys in groups.items():
            keys.sort(key=lambda k: (order.get(k, len(order)), k))
            sources = {lines[k][1] for k in keys}
            name = part_name(defense, keys)
            if {p.name for p in sources} != {name}:
                self._merge(name, keys, {k: lines[k][1] for k in keys}, [lines[k][0] for k in keys])
                for part in sources:
                    if part.name != name:
                        _remove(part)

    def _stored(self) -> list[Path]:
        """All parts, merged ones first."""
        parts = [p for p in self.parts.iterdir() if not p.name.startswith(".")]
        return sorted(parts, key=lambda p: (p.name.startswith("cell-"), p.name))

    def _merge(self, name: str, keys: list[str], where: dict[str, Path], lines: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
        from safetensors.numpy import load_file

        held = {part: load_file(str(part / ADVERSARIAL)) for part in set(where.values())}
        tables = {}
        for file in (RECORDS, DRAWS):
            whole = {part: pq.read_table(part / file) for part in held}
            pieces = [whole[where[k]].filter(pc.equal(whole[where[k]]["cell"], k)) for k in keys]
            tables[file] = pa.concat_tables(pieces).combine_chunks()
        self._write_part(name, lines, tables, {k: held[where[k]][k] for k in keys})


def _float_columns(schema: Any) -> list[str]:
    """The Parquet paths of all columns of floats."""
    import pyarrow as pa

    plain = [f.name for f in schema if pa.types.is_floating(f.type)]
    lists = [f"{f.name}.list.element" for f in schema if f.name == "logits"]
    return plain + lists


def part_name(defense: str, keys: list[str]) -> str:
    """The folder of a defense's merged part: readable, safe as a file name, and different for other contents."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in defense)[:40]
    return f"all-{safe}-{hashlib.sha256('/'.join([defense, *keys]).encode()).hexdigest()[:8]}"


def read_lines(part: Path) -> list[dict[str, Any]]:
    """The cell lines of a part."""
    return [json.loads(line) for line in (part / CELLS).read_text(encoding="utf-8").splitlines()]


def damage(part: Path) -> str | None:
    """What is wrong with a part; None when every file is what was written."""
    try:
        sums = json.loads((part / SUMS).read_text())
        for name, digest in sums.items():
            if _sha256(part / name) != digest:
                return f"{name} is damaged"
    except (OSError, ValueError) as error:
        return f"it is incomplete ({type(error).__name__})"
    return None if CELLS in sums else "it is incomplete"
