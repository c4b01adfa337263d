"""Helpers: see pyautoattack. Its parts log as Python's loggers do, so the logger of fra31 has those methods too."""

from pyautoattack.other_utils import *  # noqa: F403
from pyautoattack.other_utils import Logger as _Logger


class Logger(_Logger):
    """Prints, and appends to a file where one is given."""

    def warning(self, text: str) -> None:
        """What is wrong with a model: fra31 says it whether or not it is verbose."""
        self.log(f"Warning: {text}")

    def info(self, text: str) -> None:
        """What goes on; the callers ask whether anybody wants to know."""
        self.log(text)

    debug = info
