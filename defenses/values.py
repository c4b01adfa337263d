"""Parameter values: one spelling for one value, on its way to a key, and back to Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from fractions import Fraction
from typing import Any

from defenses.errors import UserError

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


def canonical(value: Any) -> Any:
    """One spelling for one value: numbers and numeric texts become fraction strings ("0.15" and "3/20" agree)."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float | Fraction):
        return str(as_fraction(value))
    if isinstance(value, str):
        number = as_number(value)
        return value if number is None else str(number)
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    raise UserError(f"a parameter is {value!r}; only numbers, texts, true and false, lists and tables are possible")


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
