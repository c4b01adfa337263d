"""Text that comes from anywhere."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """One line of text without control characters, terminal escapes or marks that turn the reading direction."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join("�" if unicodedata.category(c)[0] == "C" else c for c in line)


def counted(n: int, what: str) -> str:
    """A number and its noun: "1 block", "2 blocks"."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def human_time(seconds: float) -> str:
    """Seconds as "8 s", "12 min" or "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
