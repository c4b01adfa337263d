"""The lines of merged parts, as long as nothing is merged anew."""

from __future__ import annotations

import uuid
from pathlib import Path

from bench.store.parts import KEPT, CellRecord, part_folders, read_lines
from defenses.utils.files import write_whole


class MergedLines:
    """The lines of the merged parts of a results folder; to look for them takes long where there are many parts.

    Args:
        folder: the results folder.
    """

    def __init__(self, folder: Path):
        self._parts, self._file = folder / "parts", folder / ".locks" / "merged"
        self._mark = b""
        self._lines: dict[str, CellRecord] | None = None

    def read(self) -> dict[str, CellRecord]:
        """Return the lines by key; those of a damaged part are missing, so that its cells are run again.

        Raises:
            FileNotFoundError: a part has moved.
        """
        try:
            mark = self._file.read_bytes()
        except OSError:
            mark = b""
        if self._lines is None or mark != self._mark:
            merged = [part for part in part_folders(self._parts) if part.name.startswith("all-")]
            self._lines = {line["key"]: line for part in merged for line in _lines(part)}
            self._mark = mark
        return self._lines

    def mark(self) -> None:
        """Tell all processes that merged parts have changed."""
        write_whole(self._file, uuid.uuid4().hex, KEPT)


def _lines(part: Path) -> list[CellRecord]:
    try:
        return read_lines(part)
    except ValueError:
        return []
