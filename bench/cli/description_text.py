"""Descriptions of `purebench show` as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.cli.terminal import aligned, heading, wrapped
from defenses.utils.json_values import JsonView
from defenses.utils.text import clean

_HEAD = ("is", "name", "about")


def as_text(description: JsonView, columns: int | None) -> str:
    """Return a description as text.

    Args:
        description: see `bench.cli.describe`.
        columns: width of the terminal; None: no limit.
    """
    lines = [heading(f"{clean(description['name'])}: {description['is']}")]
    if description.get("about"):
        lines += wrapped(clean(description["about"]), columns)
    rest = {key: value for key, value in description.items() if key not in _HEAD}
    facts = [(key, clean(_value(value))) for key, value in rest.items() if not _is_table(value)]
    if shown := [fact for fact in facts if fact[1]]:
        lines += ["", *aligned(shown, columns, indent=2)]
    for key, value in rest.items():
        if _is_table(value):
            lines += ["", heading(key), *_table(value, columns)]
    return "\n".join(lines)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _table(rows: Sequence[JsonView], columns: int | None) -> list[str]:
    """Return rows side by side where they fit, else each as a paragraph."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[clean(_value(row[key])) if key in row else "" for key in keys] for row in rows]
    table = aligned([keys, *cells], indent=2)
    if columns is None or max(map(len, table)) <= columns:
        return table
    lines = []
    for row in rows:
        (_, first), *others = row.items()
        more = "; ".join(f"{key} {_value(value)}".strip() for key, value in others)
        lines += [*wrapped(clean(_value(first)), columns, 2), *wrapped(clean(more), columns, 6)]
    return [line for line in lines if line]


def _value(value: object) -> str:
    """Return a value as text: lists with commas, tables as "key = value"."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_value(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        texts = [f"({_value(v)})" if isinstance(v, list | tuple | dict) else _value(v) for v in value]
        return ("; " if any(", " in text for text in texts) else ", ").join(texts) if texts else "none"
    return str(value)
