"""The parts of a results folder as they lie on disk: what is ours, what is whole, which line of a cell counts."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from bench.spec.cell import SCHEMA
from defenses.utils.errors import UserError

RECORDS, DRAWS, ADVERSARIAL, CELLS, SUMS = (
    "records.parquet",
    "draws.parquet",
    "adversarial.safetensors",
    "cells.jsonl",
    "checksums.json",
)
FILES = (RECORDS, DRAWS, ADVERSARIAL, CELLS)
_TRIES = 20  # parts may be merged by a running board while they are read

T = TypeVar("T")
Stored = dict[str, tuple[dict[str, Any], Path]]  # by key: the line of a cell, and the part that holds it


def attempts(read: Callable[[], T]) -> T:
    """What `read` gives; it is asked again when a part moves meanwhile.

    Raises:
        UserError: parts move all the time.
    """
    for _ in range(_TRIES):
        try:
            return read()
        except FileNotFoundError as error:
            moved = error
    raise UserError(f"{moved.filename} vanished while it was read; repeat the command") from None


def part_folders(parts: Path) -> list[Path]:
    """All parts, merged ones first; nothing else that lies there is ours."""
    if not parts.is_dir():
        return []
    found = [p for p in parts.iterdir() if p.name.startswith(("cell-", "all-")) and p.is_dir()]
    return sorted(found, key=lambda p: (p.name.startswith("cell-"), p.name))


def read_lines(part: Path) -> list[dict[str, Any]]:
    """The cell lines of a part.

    Raises:
        FileNotFoundError: the part has moved.
        ValueError: its lines cannot be read.
        UserError: a newer version wrote them.
    """
    before = identity(part)
    try:
        lines = json_lines((part / CELLS).read_text(encoding="utf-8"))
    except OSError as error:
        _same(part, before)
        raise ValueError(f"it is incomplete ({type(error).__name__})") from None
    except (ValueError, RecursionError):
        lines = [None]
    if not all(map(_is_line, lines)):
        raise ValueError(f"{CELLS} is damaged")
    for line in lines:
        refuse_newer(part, line.get("identity"))
    return lines


def json_lines(text: str) -> list[Any]:
    """What lines of JSON hold; read in one go, which takes half the time.

    Raises:
        ValueError: they are none.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would look through thousands of small objects, which all stay, again and again
    try:
        return list(json.loads(f"[{text.strip().replace(chr(10), ',')}]"))
    finally:
        if collecting:
            gc.enable()


def _is_line(line: Any) -> bool:
    return (
        isinstance(line, dict)
        and {"error", "defense"} <= line.keys()
        and isinstance(line.get("key"), str)
        and isinstance(line.get("status"), str)
    )


def refuse_newer(path: Path, content: Any) -> None:
    """Refuse what a newer version wrote, before anything takes it for damaged.

    Args:
        path: where it is.
        content: what says its "schema".

    Raises:
        UserError: it is newer.
    """
    schema = content.get("schema") if isinstance(content, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        text = f"{path} was written by a newer purebench (schema {schema}, this one knows {SCHEMA}): update purebench"
        raise UserError(f"{text}, or choose another folder")


def read_whole(part: Path, name: str) -> bytes:
    """The contents of a file of a part, which are what was written.

    Raises:
        FileNotFoundError: the part has moved, or another has come in its place.
        ValueError: the file is damaged.
    """
    with opened(part, name) as file:
        return file.read()


def opened(part: Path, name: str) -> BinaryIO:
    """A file of a part, open for reading, whose contents are what was written; whoever calls closes it.

    Raises:
        FileNotFoundError: the part has moved, or another has come in its place.
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
            _same(part, before)
            raise ValueError(f"{name} is damaged")
        stack.pop_all()
    return file


def damage(part: Path) -> str | None:
    """What is wrong with a part; None when every file is what was written.

    Raises:
        FileNotFoundError: the part has moved, or another has come in its place.
    """
    before = identity(part)
    problem = _problem(part)
    if problem:
        _same(part, before)
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
    """Tells a part from another one that came in its place."""
    stat = part.stat()
    return stat.st_ino, stat.st_mtime_ns


def _same(part: Path, before: tuple[int, int]) -> None:
    """A reader of a part that was replaced has seen a mixture of two: it must read again."""
    if identity(part) != before:
        raise FileNotFoundError(2, "replaced", str(part))


def stored(parts: Path, damaged: Callable[[Path, str], None] | None = None) -> Stored:
    """Every stored cell's line that counts.

    Of two results of a cell (it was run again, or a merge was cut short) the one in a part of its own is newer, and a
    failed one never hides a good one.

    Args:
        parts: the folder of the parts.
        damaged: called with every damaged part and what is wrong; the checksums of all files are compared for it.
            None: damaged parts are left out, and only the lines are read.
    """
    return attempts(lambda: _stored(parts, damaged))


def _stored(parts: Path, damaged: Callable[[Path, str], None] | None) -> Stored:
    found: Stored = {}
    for part in part_folders(parts):
        problem = damage(part) if damaged else None
        lines: list[dict[str, Any]] = []
        try:
            lines = [] if problem else read_lines(part)
        except ValueError as error:
            problem = str(error)
        if problem and damaged:
            damaged(part, problem)
        for line in lines:
            known = found.get(line["key"])
            if known is None or line["status"] == "ok" or known[0]["status"] != "ok":
                found[line["key"]] = line, part
    return found


def sha256(path: Path) -> str:
    """The hash of a file's contents, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
