"""A table of strings, before it is written in a format.

Names of defenses and attacks are untrusted text: each writer escapes them and removes control characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table ready to be written.

    Args:
        title: one line.
        columns: headers.
        rows: cells, as long as `columns` each.
        footnotes: lines below.
        left: number of first columns that hold names, aligned left.
        tail: number of last columns that hold remarks, aligned left; all others are aligned right.
        strong: positions of highlighted rows.
        name: by which LaTeX refers to it; "": its title.

    Raises:
        ValueError: a row of another length than `columns`.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footnotes: tuple[str, ...] = ()
    left: int = 1
    tail: int = 0
    strong: frozenset[int] = frozenset()
    name: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("every row needs one cell per column")

    @property
    def headers(self) -> int:
        """Number of first columns that name their row; one where all hold text."""
        return self.left if self.left < len(self.columns) - self.tail else 1

    def is_left(self, column: int) -> bool:
        """Return True if a column is aligned left."""
        return column < self.left or column >= len(self.columns) - self.tail


def table_list(tables: Table | Iterable[Table]) -> list[Table]:
    """Return one table or several as a list."""
    return [tables] if isinstance(tables, Table) else list(tables)
