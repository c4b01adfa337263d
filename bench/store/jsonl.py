"""JSON lines: files of finished work, which runs append to and resume from, and many lines parsed at once."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from defenses.utils.errors import UserError
from defenses.utils.files import disk_errors, make_folder
from defenses.utils.json_values import Json, JsonView

_KEPT = "finished lines are kept"


class JsonlFile:
    """A JSON-lines file of finished work, its entries by key; the first line identifies the work.

    Args:
        path: the file; its folder is made.
        about: identity of the work, which all lines depend on. Other work is refused, and so are two writers at once.

    Raises:
        UserError: the file is of other work or damaged, in use, or cannot be written.
    """

    def __init__(self, path: Path, about: JsonView):
        self.path, self.about = path, json.loads(json.dumps(about))
        self.entries: dict[str, Json] = {}

    @contextmanager
    def open(self) -> Iterator[JsonlFile]:
        """Lock the file for writing, and read its entries.

        Raises:
            UserError: another process writes it, it is of other work, or damaged.
        """
        make_folder(self.path.parent)
        try:
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0):
                self._begin()
                yield self
        except Timeout:
            raise UserError(f"{self.path} is being written by another process; wait for it") from None

    def check(self) -> None:
        """Refuse a file of other work, without writing.

        Raises:
            UserError: the file is of other work or damaged.
        """
        if self.path.exists():
            self._read()

    def add(self, key: str, entry: Mapping[str, object]) -> None:
        """Append an entry, and sync it to the disk."""
        self._append({"key": key, **entry})
        self.entries[key] = dict(entry)

    def drop(self, keys: Iterable[str]) -> None:
        """Forget entries that hold no longer; those that are added in their place count, see `read`."""
        for key in keys:
            del self.entries[key]

    def _begin(self) -> None:
        if not self.path.exists():
            self._append({"about": self.about})
            return
        self.entries, size = self._read()
        if size < self.path.stat().st_size:  # a crash cut the last line short
            with disk_errors(self.path.parent, _KEPT):
                os.truncate(self.path, size)

    def _read(self) -> tuple[dict[str, dict[str, object]], int]:
        about, entries, size = read(self.path)
        check_about(self.path, about, dict.fromkeys(about) | self.about)
        return entries, size

    def _append(self, line: Mapping[str, object]) -> None:
        with disk_errors(self.path.parent, _KEPT), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def check_about(path: Path, about: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuse a file of other work.

    Args:
        path: the file.
        about: its first line.
        wanted: values that some keys of `about` must have.

    Raises:
        UserError: a value differs.
    """
    differing = [key for key in sorted(wanted) if about.get(key) != wanted[key]]
    if differing:
        raise UserError(f'{path} is of other work (its "{differing[0]}" differs); choose another --out')


def read(path: Path) -> tuple[Json, dict[str, Json], int]:
    """Read a file.

    Returns:
        The identity of the work, the entries by key, and the size in bytes of all complete lines.

    Raises:
        UserError: the file is damaged.
    """
    data = path.read_bytes()
    size = data.rfind(b"\n") + 1
    about: Json = {}
    entries: dict[str, Json] = {}
    for number, text in enumerate(data[:size].splitlines(), 1):
        try:
            line = json.loads(text)
            if number == 1:
                about = dict(line["about"])
            else:
                entries[line.pop("key")] = line
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}, line {number} is damaged; remove the file, or that line") from None
    if not about:
        raise UserError(f"{path} says nothing of what it is about; remove the file")
    return about, entries, size


def json_lines(text: str) -> list[Any]:
    """Parse lines of JSON.

    Raises:
        ValueError: a line is not JSON.
    """
    with uncollected():  # as one array: faster than line by line
        return list(json.loads(f"[{text.strip().replace(chr(10), ',')}]"))


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause Python's search for reference cycles, which thousands of small objects that stay would trigger in vain."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
