"""Parameter values: canonical form for keys, and back to Python."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import Enum
from fractions import Fraction
from typing import Any

from defenses.utils.errors import UserError

_EXPONENT = re.compile(r"[eE][+-]?\d{4}")  # too large a power of ten
_LONGEST = 200  # characters of a number


def as_fraction(value: float | Fraction) -> Fraction:
    """Return a number as the fraction that it prints as, or n/255 for a float such as 8 / 255."""
    if isinstance(value, float):
        n = round(value * 255) if abs(value) < 1e6 else 0
        if n / 255 == value:
            return Fraction(n, 255)
    return Fraction(str(value))


def plain(value: object) -> Any:
    """Return the value of an enum, as "Linf" for RobustBench's `ThreatModel.Linf`; other values as they are."""
    return value.value if isinstance(value, Enum) else value


def as_number(text: str) -> Fraction | None:
    """Return the number that a text spells, else None; also for "1e999999999", whose digits would fill memory."""
    if len(text) > _LONGEST or _EXPONENT.search(text):
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def canonical(value: Any, name: str = "a parameter") -> Any:
    """Return the canonical form of a value: numbers and numeric texts become fractions ("0.15" and "3/20" agree).

    Args:
        value: number, text, true or false, None, list or table.
        name: of the parameter, for messages.

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
    """Return the Python value of a canonical one: whole numbers become int, other numbers float."""
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
