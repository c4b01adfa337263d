"""Warnings and notes for the user: lines of the logger "purebench", on standard error where no handler is set up."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator

from defenses.utils.text import clean

LOGGER = logging.getLogger("purebench")  # silence: logging.getLogger("purebench").setLevel("ERROR")


def warn(text: str) -> None:
    """Log a warning of one line."""
    LOGGER.warning("warning: %s", clean(text))


def note(text: str) -> None:
    """Log a note of one line, about data or models rather than faults; its level is that of a warning."""
    LOGGER.warning("note: %s", clean(text))


@functools.cache
def hint(text: str) -> None:
    """Log a warning of one line, once a process."""
    warn(text)


@contextlib.contextmanager
def on_standard_error() -> Iterator[None]:
    """Write the lines to standard error, whatever handlers third-party code sets up; for commands."""
    handler = logging.StreamHandler()
    LOGGER.addHandler(handler)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.propagate = True
        LOGGER.removeHandler(handler)
