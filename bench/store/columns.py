"""Columns of records and draws that tables need, with their kinds."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from defenses.utils.errors import UserError

_KINDS: dict[str, dict[str, tuple[str, ...]]] = {
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
_MORE: dict[str, dict[str, tuple[str, ...]]] = {  # columns that some runs write
    "records.parquet": {"number": ("hits_sel", "majority_right", "majority_draws")},
    "draws.parquet": {"number": ("score",), "list": ("classes",)},
}


def known_columns(name: str) -> dict[str, str]:
    """Return the kind of each column that a run writes into a file of a part, as "text" or "number"."""
    return {column: kind for kinds in (_KINDS[name], _MORE[name]) for kind, of in kinds.items() for column in of}


def check_columns(table: pa.Table, file: Path) -> None:
    """Refuse a table that lacks a column, or has one of another kind.

    Args:
        table: Arrow table.
        file: the file it was read from; its name decides which columns it must have.

    Raises:
        UserError: a column is missing or of another kind.
    """
    for kind, names in _KINDS[file.name].items():
        for name in names:
            if name not in table.column_names:
                raise UserError(f'{file} has no column "{name}"; {_remedy(file)}')
            data_type = table.schema.field(name).type
            if column_kind(data_type) != kind:
                raise UserError(f'{file}: the column "{name}" is {data_type}, not a {kind}; {_remedy(file)}')


def _remedy(file: Path) -> str:
    return f"another version wrote it: remove {file.parent.name}, and the next run does its cells again"


def column_kind(data_type: pa.DataType) -> str:
    """Return the kind of a column: "text", "number", "flag" or "list"; else the name of its type."""
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    if pa.types.is_string(data_type) or pa.types.is_large_string(data_type):
        return "text"
    if pa.types.is_boolean(data_type):
        return "flag"
    if pa.types.is_integer(data_type) or pa.types.is_floating(data_type):
        return "number"
    return "list" if pa.types.is_list(data_type) or pa.types.is_fixed_size_list(data_type) else str(data_type)
