"""The error for bad input, and checks of parameters."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import TypeVar

_LISTED = 10  # names in a message
_NEAR = 6  # nearest names, at most
A = TypeVar("A")
B = TypeVar("B")


class UserError(Exception):
    """Bad input: a line for each mistake, with its remedy, printed by commands before they exit with 2."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))

    def within(self, where: str) -> UserError:
        """Return the error with the name of the object, as of a file, in front of each line."""
        return UserError(*(f"{where}: {line}" for line in self.args))


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """Return the error for an unknown name, with the nearest known names, or else the first ten.

    Args:
        kind: the kind of thing, as "attack".
        name: the unknown name.
        choices: all known names.
    """
    names = sorted(set(choices))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    lowered = {n.lower(): n for n in names}
    near = near or [lowered[n] for n in difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.5)]
    near = list(dict.fromkeys([*_of_libraries(name.lower(), names), *near]))[:_NEAR]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names[:_LISTED]) or 'none'}{more}"
    return UserError(f'unknown {kind} "{name}"; {hint}')


def _of_libraries(name: str, names: Iterable[str]) -> list[str]:
    """Return the names "library:part" whose part is a name in lower case, then those whose part ends with it."""
    parts = {known: known.lower().partition(":")[2] for known in names}
    fitting = [known for known, part in parts.items() if len(name) > 2 and part.endswith(name)]
    return sorted(fitting, key=lambda known: len(parts[known]))


def gathered(function: Callable[[A], B], values: Iterable[A]) -> list[B]:
    """Return a function of each value.

    Raises:
        UserError: the faults of all values.
    """
    results: list[B] = []
    faults: list[str] = []
    for value in values:
        try:
            results.append(function(value))
        except UserError as error:
            faults += error.args
    if faults:
        raise UserError(*faults)
    return results


def with_context(where: str, error: UserError) -> UserError:
    """Return the error with the name of its object in front, unless its text has it already.

    Args:
        where: the name, as of a defense or a file.
        error: the error.
    """
    text = str(error)
    return error if text.startswith(f"{where}: ") or f'"{where}"' in text else error.within(where)


def check_whole(least: int, **parameters: object) -> None:
    """Refuse parameters that are no whole numbers of at least `least`.

    Args:
        least: the lower bound.
        **parameters: values by the names that messages show.

    Raises:
        UserError: a value is not; the message names the first.
    """
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise UserError(f"{name} is {value}; it must be a whole number, at least {least}")


def check_numbers(**parameters: object) -> None:
    """Refuse parameters that are no finite numbers.

    Args:
        **parameters: values by the names that messages show.

    Raises:
        UserError: a value is not; the message names the first.
    """
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise UserError(f"{name} is {value}; it must be a number")
