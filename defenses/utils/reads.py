"""Records of what the code of plug-ins reads, by place, and which code is reading."""

from __future__ import annotations

import hashlib
import os
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import FrameType

PYTHON = sysconfig.get_path("stdlib")
_READERS_OF_SOURCE = ("/linecache.py", "/tokenize.py")
Stamp = tuple[int, ...]  # size, time of change of the content and of the file, in ns

lock = threading.Lock()
by_place: dict[str, Reads] = {}
names: dict[str, str] = {}  # places by private package
_running = 0


@dataclass
class Reads:
    """Files, folders and environment variables that the code of a place has read, by the names of `stamp_of`.

    Args:
        files: stamps when they were first read; None: there was none.
        readers: modules whose code read it.
        written: files that it wrote, whose content is its own.
        problems: ways in which it learns what no file says, by module.
    """

    files: dict[str, Stamp | None] = field(default_factory=dict)
    readers: dict[str, set[str]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)

    def changed(self) -> bool:
        """Return True if one of them is another than when it was read."""
        return any(stamp_of(path) != stamp for path, stamp in list(self.files.items()))


_NOTHING = Reads()


def reads_of(place: str) -> Reads:
    """Return the record of a place; an empty one where nothing is recorded."""
    return by_place.get(place) or _NOTHING


def forget(place: str) -> None:
    """Begin a new record of a place, whose code is imported anew."""
    if place in by_place:
        by_place[place] = Reads()


@contextmanager
def running() -> Iterator[None]:
    """Take note of programs and connections that code starts meanwhile; what is loaded before is known by its state."""
    global _running
    _running += 1
    try:
        yield
    finally:
        _running -= 1


def is_running() -> bool:
    """Return True within `running`."""
    return _running > 0


def stamp_of(name: str) -> Stamp | None:
    """Return the stamp of a file, a folder, an environment variable, or of the answer whether a file is there.

    Args:
        name: path; "path/" of the names in a folder, "$NAME" of a variable, "?path" of whether and how large a file is.

    Returns:
        Size and times of change of a file, length and hash of the others; None if there is none.
    """
    if not is_file(name):
        content = content_of(name)
        return None if content is None else (len(content), int(hashlib.sha256(content).hexdigest()[:13], 16))
    try:
        stat = os.stat(name)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def is_file(name: str) -> bool:
    """Return True for the name of a file, as in `stamp_of`."""
    return not name.startswith(("$", "?")) and not name.endswith("/")


def content_of(name: str) -> bytes | None:
    """Return the names in a folder, the value of a variable or the size of a file as text; None if there is none."""
    if name.startswith("$"):
        return os.environb.get(os.fsencode(name[1:]))
    try:
        if name.startswith("?"):
            return b"folder" if os.path.isdir(name[1:]) else str(os.path.getsize(name[1:])).encode()
        return b"\0".join(sorted(os.listdir(os.fsencode(name))))
    except OSError:
        return None


@lru_cache(4096)
def sha_of(name: str, _stamp: Stamp) -> str:
    """Return the SHA-256 of what has a stamp, computed once for every stamp."""
    if not is_file(name):
        return hashlib.sha256(content_of(name) or b"").hexdigest()
    with open(name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reader_of(frame: FrameType | None, *, imported: bool) -> tuple[Reads | None, str]:
    """Return the record of the innermost code of a plug-in that runs, and its module; None if it is importing."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not imported and (file.startswith("<frozen importlib") or file.endswith(_READERS_OF_SOURCE)):
            return None, ""
        if (place := place_of(frame)) is not None:
            return by_place[place], str(frame.f_globals.get("__name__"))
        frame = frame.f_back
    return None, ""


def place_of(frame: FrameType) -> str | None:
    """Return the place of the plug-in whose code runs in a frame; None if it is other code."""
    name = frame.f_globals.get("__name__")
    if isinstance(name, str) and (place := names.get(name.partition(".")[0])) is not None:
        return place
    return _place_of_file(frame.f_code.co_filename, len(by_place))


@lru_cache(4096)
def _place_of_file(file: str, _count: int) -> str | None:
    ordinary = by_place.keys() - names.values()
    return next((place for place in ordinary if file == place or file.startswith(f"{place}/")), None)
