"""Durations as boards and commands write them."""

from __future__ import annotations

import math
import re

from defenses.utils.errors import UserError

_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600}


def duration(text: str | float) -> float:
    """Return the seconds of 600, "600", "90 s", "10min" or "1.5h".

    Raises:
        UserError: it is none of these, or not positive.
    """
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)", str(text).strip().lower())
    try:
        value = float(match[1]) * _UNITS[match[2]] if match else 0.0
    except (KeyError, ValueError):
        value = 0.0
    if not (0 < value < math.inf):
        raise UserError(f'the time limit is {text!r}; write seconds, or "10min" or "2h"')
    return value
