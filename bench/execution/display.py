"""Lines of a run on standard error, with a last one on terminals that is written anew."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

_ANEW = 0.2  # seconds, at least, from one state of the last line to the next, on a terminal
_REPORTS = 60.0  # and elsewhere
_BAR = 10  # characters


class Display:
    """Lines that stay, and the present state: on a terminal the last line, elsewhere a line a minute.

    Args:
        stream: where lines go; None: standard error, as it is now, since that of models may be bounded.
        clock: seconds.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.perf_counter):
        self._stream, self._clock = sys.stderr if stream is None else stream, clock
        self._terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._last, self._shown = clock(), False

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        self._last = self._clock()
        print(text, file=self._stream, flush=True)

    def state(self, describe: Callable[[], str]) -> None:
        """Show the present state, where it is time to."""
        now = self._clock()
        if now - self._last < (_ANEW if self._terminal else _REPORTS):
            return
        with suppress(OSError):  # an attack may be running, and it is no fault of it
            if not self._terminal:
                self.line(describe())
                return
            self._last, self._shown = now, True
            text = describe()[: shutil.get_terminal_size().columns - 1]
            print(f"\r{text}\x1b[K", end="", file=self._stream, flush=True)

    def clear(self) -> None:
        """Remove the state, before others write."""
        if self._shown:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
            self._shown = False


def bar(share: float) -> str:
    """Return a share in [0, 1] as a bar and per cent: "[####......] 45%"."""
    full = int(share * _BAR)
    return f"[{'#' * full}{'.' * (_BAR - full)}] {100 * share:.0f}%"
