"""Text for people: cleaned lines, counts, durations."""

from __future__ import annotations

import re
import unicodedata


def clean(text: str) -> str:
    """Return a text as one line without control characters, terminal escapes or marks of reading direction."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join("�" if unicodedata.category(c)[0] == "C" else c for c in line)


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: "1 block", "2 blocks"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def file_name(text: str) -> str:
    """Return a text as the name of a file or folder: word characters and ".", others replaced by "-"."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")


def human_time(seconds: float) -> str:
    """Return seconds as "8 s", "12 min" or "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
