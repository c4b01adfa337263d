"""Find, read and check the parts of a results folder, and choose the line of each cell."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from bench.spec.cell import SCHEMA
from bench.spec.cell_columns import CellColumns
from bench.store.jsonl import json_lines
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json

RECORDS, DRAWS, ADVERSARIAL, CELLS, SUMS = (
    "records.parquet",
    "draws.parquet",
    "adversarial.safetensors",
    "cells.jsonl",
    "checksums.json",
)
FILES = (RECORDS, DRAWS, ADVERSARIAL, CELLS)
KEPT = "finished cells are kept"  # told where a folder cannot be written
_TRIES = 20  # parts may be merged by a running board while they are read

T = TypeVar("T")


class CellRecord(CellColumns, total=False):
    """A line of cells.jsonl.

    Args:
        status: "ok", "error" or "unsupported"; "missing" of a planned cell that has no line.
        error: one line, or None; of a cell with status "ok", the first error of its images.
        identity: `Cell.identity()`.
        run: id of the run that finished the cell.
        seconds_attack, forwards, backwards, queries: cost of the attack, where the cell was judged.
        seconds_verdict, forwards_verdict, backwards_verdict: cost of the verdict, where the cell was judged.
        notes: texts for tables, where there are any.
        traceback: of a failure; None where there is none.
        sources: of the user's code, see `bench.execution.sources`; missing where there was none.
        part: name of the part that holds the line, once it is read.
    """

    status: str
    error: str | None
    identity: Json
    run: str
    seconds_attack: float
    seconds_verdict: float
    forwards: int
    forwards_verdict: int
    backwards: int
    backwards_verdict: int
    queries: int
    notes: list[str]
    traceback: str | None
    sources: list[Json]
    part: str | None


Stored = dict[str, tuple[CellRecord, Path]]  # by key: the line of a cell, and the part that holds it


def attempts(read: Callable[[], T]) -> T:
    """Return `read()`, repeated while parts move during it.

    Raises:
        UserError: parts moved at every attempt.
    """
    for _ in range(_TRIES):
        try:
            return read()
        except FileNotFoundError as error:
            missing = error
    raise UserError(f"{missing.filename} vanished while it was read; repeat the command") from None


def part_folders(parts: Path) -> list[Path]:
    """Return the folders of all parts, merged ones first."""
    if not parts.is_dir():
        return []
    folders = [p for p in parts.iterdir() if p.name.startswith(("cell-", "all-")) and p.is_dir()]
    return sorted(folders, key=lambda p: (p.name.startswith("cell-"), p.name))


def read_lines(part: Path) -> list[CellRecord]:
    """Read the cell lines of a part.

    Raises:
        FileNotFoundError: the part has moved.
        ValueError: the lines cannot be read.
        UserError: a newer version wrote them.
    """
    before = identity(part)
    try:
        contents = (part / CELLS).read_bytes()
    except OSError as error:
        _check_same(part, before)
        raise ValueError(f"it is incomplete ({type(error).__name__})") from None
    return lines_of(part, contents)


def lines_of(part: Path, contents: bytes) -> list[CellRecord]:
    """Return the cell lines of a part.

    Args:
        part: folder of the part, for messages.
        contents: of its file of lines.

    Raises:
        ValueError: the lines cannot be read.
        UserError: a newer version wrote them.
    """
    try:
        lines = json_lines(contents.decode("utf-8"))
    except (ValueError, RecursionError):
        lines = [None]
    if not all(map(_is_line, lines)):
        raise ValueError(f"{CELLS} is damaged")
    for line in lines:
        refuse_newer(part, line.get("identity"))
    return lines


def _is_line(line: object) -> bool:
    return (
        isinstance(line, dict)
        and {"error", "defense"} <= line.keys()
        and isinstance(line.get("key"), str)
        and isinstance(line.get("status"), str)
    )


def refuse_newer(path: Path, content: Any) -> None:
    """Refuse contents that a newer version wrote.

    Args:
        path: the file or part.
        content: parsed JSON with the key "schema".

    Raises:
        UserError: the schema is newer.
    """
    schema = content.get("schema") if isinstance(content, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        text = f"{path} was written by a newer purebench (schema {schema}, this one knows {SCHEMA}): update purebench"
        raise UserError(f"{text}, or choose another folder")


def read_whole(part: Path, name: str) -> bytes:
    """Return the contents of a file of a part, checked against its checksum.

    Raises:
        FileNotFoundError: the part has moved or was replaced.
        ValueError: the file is damaged.
    """
    with opened(part, name) as file:
        return file.read()


def opened(part: Path, name: str) -> BinaryIO:
    """Open a file of a part for reading, after checking its checksum; the caller closes it.

    Raises:
        FileNotFoundError: the part has moved or was replaced.
        ValueError: the file is damaged.
    """
    before = identity(part)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(part / name, "rb"))
            sums = json.loads((part / SUMS).read_bytes())
            problem = hashlib.file_digest(file, "sha256").hexdigest() != sums[name]
            file.seek(0)
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            problem = True
        if problem:
            _check_same(part, before)
            raise ValueError(f"{name} is damaged")
        stack.pop_all()
    return file


def damage(part: Path) -> str | None:
    """Return the damage of a part; None where all files have their checksums.

    Raises:
        FileNotFoundError: the part has moved or was replaced.
    """
    before = identity(part)
    problem = _problem(part)
    if problem:
        _check_same(part, before)
    return problem


def _problem(part: Path) -> str | None:
    try:
        sums = json.loads((part / SUMS).read_bytes())
        if not isinstance(sums, dict) or CELLS not in sums or not sums.keys() <= {*FILES}:
            return "it is incomplete"
        for name, digest in sums.items():
            if sha256(part / name) != digest:
                return f"{name} is damaged"
    except (OSError, ValueError, RecursionError) as error:
        return f"it is incomplete ({type(error).__name__})"
    return None


def identity(part: Path) -> tuple[int, int]:
    """Return (inode, time of change), which differ where a part was replaced."""
    stat = part.stat()
    return stat.st_ino, stat.st_mtime_ns


def _check_same(part: Path, before: tuple[int, int]) -> None:
    """Raise FileNotFoundError if a part was replaced while it was read: its reader has seen a mixture of two."""
    if identity(part) != before:
        raise FileNotFoundError(2, "replaced", str(part))


def stored(parts: Path, damaged: Callable[[Path, str], None] | None = None) -> Stored:
    """Return the line of every stored cell, with the part that holds it.

    A cell has two results where it was run again or a merge was cut short. Then the one in a cell part is newer, and a
    failed result never replaces a good one.

    Args:
        parts: folder of the parts.
        damaged: called with every damaged part and its damage, found by the checksums of all files. None: damaged parts
            are left out, and only the lines are read.
    """
    return attempts(lambda: _stored(parts, damaged))


def _stored(parts: Path, damaged: Callable[[Path, str], None] | None) -> Stored:
    cells: Stored = {}
    for part in part_folders(parts):
        problem = damage(part) if damaged else None
        lines: list[CellRecord] = []
        try:
            lines = [] if problem else read_lines(part)
        except ValueError as error:
            problem = str(error)
        if problem and damaged:
            damaged(part, problem)
        for line in lines:
            earlier = cells.get(line["key"])
            if earlier is None or line["status"] == "ok" or earlier[0]["status"] != "ok":
                cells[line["key"]] = line, part
    return cells


def by_defense(cells: Stored, order: Mapping[str, int]) -> dict[str, Stored]:
    """Return the finished cells of each defense, in table order, by the name of its merged part.

    Args:
        cells: stored cells by key.
        order: positions in the plan, by key; cells without one come last.
    """
    groups: dict[str, Stored] = {}
    for key in sorted(cells, key=lambda k: (order.get(k, len(order)), k)):
        if cells[key][0]["status"] == "ok":
            groups.setdefault(cells[key][0]["defense"], {})[key] = cells[key]
    return {part_name(defense, [line for line, _ in of.values()]): of for defense, of in groups.items()}


def part_name(defense: str, lines: list[CellRecord]) -> str:
    """Return the folder name of a defense's merged part; the name depends on the contents."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in defense)[:40]
    contents = "/".join([defense, *(f"{line['key']} {line.get('run')}" for line in lines)])
    return f"all-{safe}-{hashlib.sha256(contents.encode()).hexdigest()[:8]}"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_part(part: Path) -> None:
    """Remove a part in one step for readers."""
    gone = part.with_name(f".gone-{uuid.uuid4().hex}")
    try:
        os.replace(part, gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)
