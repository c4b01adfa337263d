"""The columns of records and draws that tables need, and what kind each is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defenses.utils.errors import UserError

_KINDS = {
    "records.parquet": {
        "text": ("cell", "sha", "status", "error"),
        "number": (
            *("index", "label", "target", "correct", "draws", "correct_sel", "draws_sel", "hits"),
            *("rejected", "margin", "linf", "l2", "l1", "l0", "queries", "forwards", "backwards", "seconds"),
        ),
        "flag": ("in_box", "in_ball", "finite", "beyond"),
    },
    "draws.parquet": {
        "text": ("cell",),
        "number": ("index", "draw", "pred", "margin"),
        "flag": ("held_out", "rejected"),
        "list": ("logits",),
    },
}


def check_columns(table: Any, file: Path) -> None:
    """Refuse a table that another version has written in another way.

    Args:
        table: the Arrow table of a file.
        file: its name says what must be in it.

    Raises:
        UserError: a column is missing or of another kind.
    """
    for kind, names in _KINDS[file.name].items():
        for name in names:
            if name not in table.column_names:
                raise UserError(f'{file} has no column "{name}"; {_remedy(file)}')
            if _kind(table.schema.field(name).type) != kind:
                found = table.schema.field(name).type
                raise UserError(f'{file}: the column "{name}" is {found}, not a {kind}; {_remedy(file)}')


def _remedy(file: Path) -> str:
    return f"another version wrote it: remove {file.parent.name}, and the next run does its cells again"


def _kind(given: Any) -> str:
    from pyarrow import types

    if types.is_dictionary(given):
        given = given.value_type
    if types.is_string(given) or types.is_large_string(given):
        return "text"
    if types.is_boolean(given):
        return "flag"
    if types.is_integer(given) or types.is_floating(given):
        return "number"
    return "list" if types.is_list(given) or types.is_fixed_size_list(given) else str(given)
