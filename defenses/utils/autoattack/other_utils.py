"""Helpers: see pyautoattack. Its parts log as Python's loggers do, so the logger of fra31 has those methods too."""

from pyautoattack.other_utils import *
from pyautoattack.other_utils import Logger as _Logger


class Logger(_Logger):  # type: ignore[misc]
    """Print messages, and append them to a file where one is given."""

    def warning(self, text: str) -> None:
        """Log what is wrong with a model, as fra31 does, verbose or not."""
        self.log(f"Warning: {text}")

    def info(self, text: str) -> None:
        """Log progress; callers ask whether it is wanted."""
        self.log(text)

    debug = info
