"""The subcommands of `purebench`, a module each: `add` declares the arguments, heavy imports wait until it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from defenses.utils.errors import UserError

Command = Callable[[argparse.Namespace], int]  # the exit code, as of `bench.cli.main`
Declare = Callable[[str, Command, str], argparse.ArgumentParser]  # name, function, one line of help


def positive(text: str) -> int:
    """A whole number, at least 1, of the command line."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number, at least 1")
    return value


def refuse_with(what: str, arguments: argparse.Namespace, *names: str) -> None:
    """Refuse options that only a single defense takes.

    Args:
        what: is given in its place, as "board".
        arguments: of the command line.
        names: of the options.

    Raises:
        UserError: one of them is given.
    """
    for name in names:
        if getattr(arguments, name):
            raise UserError(f"--{name} is for a single defense; a {what} says it itself, leave it out")


def key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs of the command line; a value is read as TOML where it is, and as text elsewhere.

    Raises:
        UserError: a pair is none.
    """
    import tomllib

    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f'"{pair}" is not KEY=VALUE')
        try:
            values[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = value
    return values
