"""The keys of a board file and what may stand there. Nothing here imports torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from defenses.utils.errors import UserError, unknown
from defenses.utils.parameters import as_fraction, as_number


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _whole(value: Any) -> bool:
    return type(value) is int  # true and false are no numbers


def _number(value: Any) -> bool:
    return _text(value) or type(value) in (int, float)


def _between(value: Any, low: int, high: int) -> bool:
    number = as_number(value if isinstance(value, str) else repr(value)) if _number(value) else None
    return number is not None and low <= number <= high


def _list_of(one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(one, value))


def _table(value: Any) -> bool:
    return isinstance(value, dict)


_Kind = tuple[Callable[[Any], bool], str]
_TEXT: _Kind = (_text, "a text of printable characters")
_FOLDER: _Kind = (
    lambda v: _text(v) and v == PurePath(v).name and not v.startswith(".") and "\\" not in v,
    "a text that can name a folder",
)
_MOST = 10_000_000  # more is a slip, and would not fit into memory
_COUNT: _Kind = (lambda v: _whole(v) and 1 <= v <= _MOST, f"a whole number, at least 1 and at most {_MOST:,}")
_COUNTS: _Kind = (
    lambda v: _list_of(lambda n: _whole(n) and 1 <= n <= _MOST)(v) and len({*v}) == len(v),
    "a list of whole numbers, each at least 1 and there once, as [5, 15]",
)
_NAMES: _Kind = (_list_of(_text), 'a list of names, as ["none", "uniform"]')
_TIME: _Kind = (_number, 'seconds, or a text as "10min"')
_SEED: _Kind = (lambda v: _whole(v) and 0 <= v < 1 << 63, "a whole number, at least 0 and less than 2^63")
_SEEDS: _Kind = (
    lambda v: _list_of(lambda s: _whole(s) and s >= 0)(v) and len({*v}) == len(v),
    "a list of whole numbers, each at least 0 and there once, as [0, 1, 2]",
)
_ERROR: _Kind = (lambda v: type(v) is float and 0 < v < 0.5, "a share above 0 and below 0.5, as 0.01")
_FLAG: _Kind = (lambda v: isinstance(v, bool), "true or false")
_TABLE: _Kind = (_table, "a table")
_VIEWS: _Kind = (_list_of(_table), "a list of tables, at least one, as [{ eot = 8 }]")
_LABELS: _Kind = (lambda v: _text(v) or _list_of(_text)(v), "a text or a list of texts")
_BUDGET: _Kind = (lambda v: v in ("full", "reduced"), '"full" or "reduced"')
_EPS: _Kind = (lambda v: _number(v) or _list_of(_number)(v), 'a number as "8/255" or a list of these, at least one')
_CLASS: _Kind = (lambda v: _whole(v) and v >= 0, "a class, as 0")
_SHARE: _Kind = (lambda v: _between(v, 0, 1), "a number in [0, 1]")
_SIZE: _Kind = (lambda v: _between(v, 0, 1) and as_fraction(v) > 0, 'a number in (0, 1], as "1/5"')
_RATIOS: _Kind = (
    lambda v: _list_of(_SIZE[0])(v) and len({as_fraction(r) for r in v}) == len(v),
    "a list of numbers in (0, 1], each there once, as [0.1, 0.01]",
)


def _entries(what: str) -> _Kind:
    return _list_of(_table), f"at least one table headed [[{what}]]"


_KEYS: dict[str, dict[str, _Kind]] = {
    "board": {
        "name": _FOLDER,
        "title": _TEXT,
        "dataset": _TEXT,
        "split": _TEXT,
        "indices": _TEXT,
        "budget": _BUDGET,
        "block": _COUNT,
        "threads": _COUNT,
        "time_limit": _TIME,
        "seed": _SEED,
        "threat": _TABLE,
        "verdict": _TABLE,
        "defense": _entries("defense"),
        "attack": _entries("attack"),
        "nulls": _NAMES,
        "preset": _TEXT,
    },
    "threat": {"norm": _TEXT, "eps": _EPS, "targets": _TEXT, "knowledge": _TEXT},
    "verdict": {"draws": _COUNT, "selection": _COUNT, "batch": _COUNT, "m": _COUNTS, "k": _COUNT}
    | {"sequential": _ERROR},
    "view": {"gradient": _TEXT, "eot": _COUNT, "runs": _COUNT, "output": _TEXT, "seed": _TEXT},
    "attack": {"name": _TEXT, "label": _TEXT, "params": _TABLE, "views": _VIEWS, "on": _LABELS, "source": _TEXT},
    "defense": {"name": _TEXT, "label": _TEXT, "params": _TABLE, "stochastic": _FLAG, "seeds": _SEEDS},
    # Of poisoning boards.
    "poisoning": {
        "name": _FOLDER,
        "title": _TEXT,
        "dataset": _TEXT,
        "seeds": _SEEDS,
        "target": _CLASS,
        "threads": _COUNT,
        "training": _TABLE,
        "trigger": _TABLE,
        "attack": _entries("attack"),
        "purifier": _entries("purifier"),
    },
    "training": {"recipe": _TEXT, "set": _TABLE},
    "trigger": {"size": _COUNT, "value": _SHARE},
    "poison": {
        "name": _TEXT,
        "ratios": _RATIOS,
        "against": _TEXT,
        "eps": _SIZE,
        "step": _SIZE,
        "iterations": _COUNT,
    },
    "purifier": {"name": _TEXT, "label": _TEXT, "params": _TABLE},
}
_PLACES = {"board": "the board", "poisoning": "the board", "poison": "[attack]"}


def check(what: str, table: Any) -> dict[str, Any]:
    """A table of a board, when it has only keys that exist, each with a value of its kind.

    Args:
        what: "board" (the top level), "threat", "verdict", "view", "attack" or "defense"; of a poisoning board
            "poisoning" (the top level), "training", "trigger", "poison" or "purifier".
        table: as TOML gives it.

    Raises:
        UserError: it has not.
    """
    place = _PLACES.get(what, f"[{what}]")
    if not isinstance(table, dict):
        raise UserError(f"{place} must be a table, not {table!r}")
    for key, value in table.items():
        if key not in _KEYS[what]:
            raise unknown(f"key in {place}", key, _KEYS[what])
        fits, kind = _KEYS[what][key]
        if not fits(value):
            raise UserError(f"{key} in {place} is {_short(value)}; it must be {kind}")
    return table


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600}


def duration(text: str | float) -> float:
    """Seconds from 600, "600", "90 s", "10min" or "1.5h".

    Raises:
        UserError: it is none of these, or not positive.
    """
    found = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)", str(text).strip().lower())
    try:
        value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    except (KeyError, ValueError):
        value = 0.0
    if not (0 < value < math.inf):
        raise UserError(f'the time limit is {text!r}; write seconds, or "10min" or "2h"')
    return value
