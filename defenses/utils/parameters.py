"""Parameter values: one spelling for one value, on its way to a key, and back to Python."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import Enum
from fractions import Fraction
from typing import Any

from defenses.utils.errors import UserError

_EXPONENT, _LONGEST = re.compile(r"[eE][+-]?\d{4}"), 200  # of texts that are numbers


def as_fraction(value: float | Fraction) -> Fraction:
    """A number as a fraction: as it prints, but a float that is n/255 for a whole n, as 8 / 255 is, becomes that."""
    if isinstance(value, float):
        n = round(value * 255) if abs(value) < 1e6 else 0
        if n / 255 == value:
            return Fraction(n, 255)
    return Fraction(str(value))


def plain(value: Any) -> Any:
    """The value that an enum stands for, as RobustBench's `ThreatModel.Linf` for "Linf"; else the value as it is."""
    return value.value if isinstance(value, Enum) else value


def as_number(text: str) -> Fraction | None:
    """The number that a text is, else None; "1e999999999", whose digits would fill memory, is none."""
    if len(text) > _LONGEST or _EXPONENT.search(text):
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def canonical(value: Any, name: str = "a parameter") -> Any:
    """One spelling for one value: numbers and numeric texts become fraction strings ("0.15" and "3/20" agree).

    Args:
        value: number, text, true or false, None, list or table.
        name: of it, for messages.

    Raises:
        UserError: it is something else, or a number that is not finite.
    """
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} is {value}; it must be finite")
    if isinstance(value, int | float | Fraction):
        return str(as_fraction(value))
    if isinstance(value, str):
        number = as_number(value)
        return value if number is None else str(number)
    if isinstance(value, Mapping):
        return {str(k): canonical(v, str(k)) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [canonical(v, name) for v in value]
    raise UserError(f"{name} is {value!r}; only numbers, texts, true and false, lists and tables are possible")


def decode(value: Any) -> Any:
    """The Python value of a canonical one: whole numbers become int, other numbers float."""
    if isinstance(value, str):
        number = as_number(value)
        if number is None:
            return value
        return int(number) if number.denominator == 1 else float(number)
    if isinstance(value, Mapping):
        return {k: decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [decode(v) for v in value]
    return value


WHOLE, COUNT = "a whole number, at least 0", "a whole number, at least 1"
NUMBER, FLAG = 'a number, as .25 or "1/4"', "true or false"
TEXT, LIST, PART = "a text", "a list", 'a name, or a table as { name = "jpeg", quality = 50 }'


def kind_of(default: Any) -> str:
    """What values a parameter takes, by its default: 10 stands for whole numbers, 10.0 and "1/4" for any."""
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, list):
        return LIST
    if isinstance(default, int):
        return WHOLE
    return NUMBER if isinstance(default, float) or as_number(default) is not None else TEXT


def is_kind(value: Any, kind: str) -> bool:
    """Whether a value in canonical form is of a kind; numbers must be such that a float can be."""
    if not isinstance(value, str):
        return isinstance(value, {FLAG: bool, LIST: list, PART: Mapping}.get(kind, ()))
    number = as_number(value)
    if number is None:
        return kind in (TEXT, PART) and len(value) <= _LONGEST
    try:
        float(number)
    except OverflowError:
        return False
    return kind == NUMBER or (number.denominator == 1 and number >= {WHOLE: 0, COUNT: 1}.get(kind, math.inf))
