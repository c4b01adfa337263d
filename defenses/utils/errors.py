"""Errors that a user can mend."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

_MOST = 10  # names in a message


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, and how to mend it. Commands print it and exit with 2."""


def unknown(what: str, given: str, known: Iterable[str]) -> UserError:
    """An error for a name that does not exist, with the nearest names that do, or else the first ten.

    Args:
        what: the kind of thing, as "attack".
        given: the name.
        known: all names.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    lowered = {n.lower(): n for n in names}
    near = near or [lowered[n] for n in difflib.get_close_matches(given.lower(), list(lowered), n=3, cutoff=0.5)]
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names[:_MOST]) or 'none'}{more}"
    return UserError(f'unknown {what} "{given}"; {hint}')


def with_context(where: str, error: UserError) -> UserError:
    """The error, with the name of what it is about before it where it does not say it."""
    text = str(error)
    return error if text.startswith(f"{where}: ") or f'"{where}"' in text else UserError(f"{where}: {text}")


def check_whole(least: int, **given: Any) -> None:
    """Refuse parameters, by name, that are no whole numbers of at least `least`.

    Raises:
        UserError: one is not.
    """
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise UserError(f"{name} is {value}; it must be a whole number, at least {least}")


def check_numbers(**given: Any) -> None:
    """Refuse parameters, by name, that are no finite numbers.

    Raises:
        UserError: one is not.
    """
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise UserError(f"{name} is {value}; it must be a number")
