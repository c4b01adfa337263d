"""Kinds of settings in a recipe, written as annotations, and the values read by them."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from defenses.utils.errors import UserError
from defenses.utils.parameters import as_number


@dataclass(frozen=True)
class Fits:
    """A range of a kind: a test of values, and its words in messages."""

    test: Callable[[Any], bool]
    words: str


Count = Annotated[int, Fits(lambda v: v >= 1, ", at least 1")]
Whole = Annotated[int, Fits(lambda v: v >= 0, ", at least 0")]
Positive = Annotated[float, Fits(lambda v: v > 0, " above 0")]
NotNegative = Annotated[float, Fits(lambda v: v >= 0, ", at least 0")]
Share = Annotated[float, Fits(lambda v: 0 <= v <= 1, " in [0, 1]")]
PartShare = Annotated[float, Fits(lambda v: 0 <= v < 1, ", at least 0 and below 1")]
Radius = Annotated[float, Fits(lambda v: 0 < v <= 1, ' above 0 and at most 1, as 0.2 or "1/5"')]
Names = Annotated[Sequence[str], Fits(bool, ', at least one, as ["undefended"]')]

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Mapping: "a table"}


def read(name: str, kind: Any, value: Any) -> Any:
    """Return a value converted to its kind; texts that are numbers, as "1/5", become these.

    Args:
        name: of the setting, for messages.
        kind: an annotation: a number, bool, str, Literal, Sequence, Mapping, None, a union or Annotated of these, or
            Any.
        value: from TOML.

    Raises:
        UserError: the value is of another kind, or out of range.
    """
    try:
        return _read(kind, value)
    except ValueError:
        text = f'"{value}"' if isinstance(value, str) else f"{value!r}"
        short = text if len(text) <= 60 else f"{text[:57]}..."
        near = difflib.get_close_matches(str(value), get_args(kind), 1, 0.5) if get_origin(kind) is Literal else []
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"recipe: {name} is {short}; it must be {_words(kind)}{hint}") from None


def _read(kind: Any, value: Any) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _tested(parts[1].test, _read(parts[0], value))
    if origin is Literal:
        return _tested(lambda v: v in parts, value)
    if origin in (Union, types.UnionType):
        return _first_fitting(parts, value)
    if kind in (int, float):
        return _number(kind, value)
    if origin is Mapping:
        table: dict[str, Any] = _tested(lambda v: isinstance(v, Mapping), value)
        return {key: _read(parts[1], v) for key, v in table.items()}
    if origin in (Sequence, tuple):
        listed: Sequence[Any] = _tested(lambda v: isinstance(v, list | tuple), value)
        return [_read(parts[0], v) for v in listed]
    return value if kind is Any else _tested(lambda v: isinstance(v, kind), value)


def _tested(test: Callable[[Any], bool], value: Any) -> Any:
    if not test(value):
        raise ValueError
    return value


def _first_fitting(kinds: Sequence[Any], value: Any) -> Any:
    for kind in kinds:
        try:
            return _read(kind, value)
        except ValueError:
            continue
    raise ValueError


def _number(kind: type, value: Any) -> int | float:
    """Return a finite number, with int and float kept apart: 1 and 1.0 are two texts in a recipe's identity."""
    if isinstance(value, str) and (number := as_number(value)) is not None:
        value = int(number) if number.denominator == 1 else float(number)
    fits = type(value) is int or (kind is float and type(value) is float and math.isfinite(value))
    return _tested(lambda _: fits, value)  # type: ignore[no-any-return]


def _words(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{_words(parts[0])}{parts[1].words}"
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part) for part in parts if part is not type(None))
    if origin is Literal:
        return " or ".join(f'"{part}"' for part in parts)
    if origin in (Sequence, tuple):
        return f"a list, each {_words(parts[0])}"
    return str(_WORDS[Mapping if origin is Mapping else kind])
