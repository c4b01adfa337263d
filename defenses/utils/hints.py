"""Hints for the user: lines of the logger "purebench", each said once a process."""

from __future__ import annotations

import functools
import logging

LOGGER = logging.getLogger("purebench")  # silence: logging.getLogger("purebench").setLevel("ERROR")


@functools.cache
def hint(text: str) -> None:
    """Log a warning of one line, once a process; without a configured handler it goes to standard error."""
    LOGGER.warning("warning: %s", text)
