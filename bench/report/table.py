"""A table of strings, and the ways to write it: Markdown, LaTeX, HTML, plain text; and a numeric frame as CSV.

Names of defenses and attacks come from anywhere: each writer escapes them, and none passes control characters on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Table:
    """A table ready to be written.

    Args:
        title: one line.
        columns: headers.
        rows: cells, as long as `columns` each.
        footnotes: lines below.
        left: how many columns, from the first, are names and set left.
        tail: how many columns, from the last, are remarks and set left; all others are set right.
        strong: positions of rows that stand out.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footnotes: tuple[str, ...] = ()
    left: int = 1
    tail: int = 0
    strong: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("every row needs one cell per column")

    def is_left(self, column: int) -> bool:
        """Whether a column is set left."""
        return column < self.left or column >= len(self.columns) - self.tail


# Markdown


def _several(tables: Table | Iterable[Table]) -> list[Table]:
    return [tables] if isinstance(tables, Table) else list(tables)


# Plain text


# LaTeX

# HTML

# CSV
