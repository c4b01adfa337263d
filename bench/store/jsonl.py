"""A file of finished work, a line of JSON each, to which a run adds and from which the next one goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from defenses.utils.errors import UserError
from defenses.utils.files import disk_errors, make_folder

_KEPT = "finished lines are kept"


class Ledger:
    """Lines of one piece of work, by key. The first line of the file says which work that is.

    Args:
        path: the file; its folder is made.
        about: what all lines depend on. Work of another kind is refused, and so are two writers at once.

    Raises:
        UserError: the file is of other work or damaged, in use, or cannot be written.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]):
        self.path, self.about = path, json.loads(json.dumps(about))
        self.entries: dict[str, dict[str, Any]] = {}

    @contextmanager
    def open(self) -> Iterator[Ledger]:
        """Hold the file for writing."""
        from filelock import FileLock, Timeout

        make_folder(self.path.parent)
        try:
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0):
                self._begin()
                yield self
        except Timeout:
            raise UserError(f"{self.path} is being written by another process; wait for it") from None

    def check(self) -> None:
        """Refuse a file of other work, before anything is written.

        Raises:
            UserError: it is one, or it is damaged.
        """
        if self.path.exists():
            self._read()

    def add(self, key: str, entry: Mapping[str, Any]) -> None:
        """Write a line; it is on the disk when this returns."""
        self._append({"key": key, **entry})
        self.entries[key] = dict(entry)

    def _begin(self) -> None:
        if not self.path.exists():
            self._append({"about": self.about})
            return
        self.entries, whole = self._read()
        if whole < self.path.stat().st_size:  # the last line was being written when the power went
            with disk_errors(self.path.parent, _KEPT):
                os.truncate(self.path, whole)

    def _read(self) -> tuple[dict[str, dict[str, Any]], int]:
        about, entries, whole = read(self.path)
        check_about(self.path, about, dict.fromkeys(about) | self.about)
        return entries, whole

    def _append(self, line: Mapping[str, Any]) -> None:
        with disk_errors(self.path.parent, _KEPT), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def check_about(path: Path, about: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a file that is about something else.

    Args:
        path: the file.
        about: what it says.
        wanted: what some of that must be.

    Raises:
        UserError: it is not.
    """
    differing = [key for key in sorted(wanted) if about.get(key) != wanted[key]]
    if differing:
        raise UserError(f'{path} is of other work (its "{differing[0]}" differs); choose another --out')


def read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]], int]:
    """What a file is about, its lines by key, and how many of its bytes are whole lines.

    Raises:
        UserError: it is damaged.
    """
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    about: dict[str, Any] = {}
    entries: dict[str, dict[str, Any]] = {}
    for number, text in enumerate(data[:whole].splitlines(), 1):
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
    return about, entries, whole
