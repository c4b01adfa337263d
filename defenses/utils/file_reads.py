"""Files that the code of plug-ins reads, through Python or a library, as far as they are known in this process."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR
_PYTHON = sysconfig.get_path("stdlib")
_PUREBENCH = str(Path(__file__).parents[2])
_SKIPPED = (_PYTHON, *(f"{_PUREBENCH}/{top}/" for top in ("bench", "defenses", "leaderboards")))
_SKIPPED += ("/proc/", "/sys/", "/dev/")
_ESCAPES = {
    "subprocess.Popen": "starts a program",
    "os.system": "starts a program",
    "socket.connect": "opens a connection",
}
_CLIENTS = ("requests", "urllib3", "httpx", "httpcore", "anyio")  # libraries through which code opens connections
_READERS_OF_SOURCE = ("/linecache.py", "/tokenize.py")
Stamp = tuple[int, int]  # size and time of change, in ns

_lock = threading.Lock()
_by_place: dict[str, Reads] = {}
_names: dict[str, str] = {}  # places by private package
_running = 0


@dataclass
class Reads:
    """Files that the code of a place has read.

    Args:
        files: by path, stamps when they were first opened; None: there was none.
        readers: by path, modules whose code opened it.
        written: files that it wrote, whose content is its own.
        problems: ways in which it learns what no file says, by module.
    """

    files: dict[str, Stamp | None] = field(default_factory=dict)
    readers: dict[str, set[str]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)

    def changed(self) -> bool:
        """Return True if a file is another one than when it was opened."""
        return any(stamp_of(path) != stamp for path, stamp in list(self.files.items()))


_NOTHING = Reads()


def watch(place: str, package: str = "") -> Reads:
    """Record the files that some code reads, from now on.

    Args:
        place: folder or file of the code.
        package: private package of its modules; "": they have ordinary names.

    Returns:
        The record, which grows.
    """
    with _lock:
        if not _by_place:
            sys.addaudithook(_on_event)
        if package:
            _names[package] = place
        return _by_place.setdefault(place, Reads())


def reads_of(place: str) -> Reads:
    """Return the record of a place; an empty one where nothing is recorded."""
    return _by_place.get(place) or _NOTHING


def forget(place: str) -> None:
    """Begin a new record of a place, whose code is imported anew."""
    if place in _by_place:
        _by_place[place] = Reads()


@contextmanager
def running() -> Iterator[None]:
    """Take note of programs and connections that code starts meanwhile; what is loaded before is known by its state."""
    global _running
    _running += 1
    try:
        yield
    finally:
        _running -= 1


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a file; None if there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


@lru_cache(4096)
def sha_of(path: str, stamp: Stamp) -> str:  # noqa: ARG001
    """Return the SHA-256 of a file, computed once for every stamp."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note(path: Any, *, written: bool = False, imported: bool = False, depth: int = 2) -> None:
    """Record that the running code opens a file, if it is a plug-in's.

    Args:
        path: of the file.
        written: it is opened for writing.
        imported: it is a compiled module; that Python reads source files is no matter here.
        depth: frames between this function and the code that opens it.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        return
    reads, module = _reader(sys._getframe(depth), imported=imported)
    if reads is None:
        return
    name = os.path.abspath(os.fsdecode(path))
    if name.startswith(_SKIPPED) or name.endswith(".pyc") or "/site-packages/" in name:
        return
    if os.path.isdir(name):
        return
    if written:
        reads.written.add(name)
        reads.files.pop(name, None)
    elif name not in reads.written:
        reads.files.setdefault(name, stamp_of(name))
        reads.readers.setdefault(name, set()).add(module)


def _reader(frame: FrameType | None, *, imported: bool) -> tuple[Reads | None, str]:
    """Return the record of the innermost code of a plug-in that runs, and its module; None if it is importing."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not imported and (file.startswith("<frozen importlib") or file.endswith(_READERS_OF_SOURCE)):
            return None, ""
        if (place := _place(frame)) is not None:
            return _by_place[place], str(frame.f_globals.get("__name__"))
        frame = frame.f_back
    return None, ""


def _place(frame: FrameType) -> str | None:
    name = frame.f_globals.get("__name__")
    if isinstance(name, str) and (place := _names.get(name.partition(".")[0])) is not None:
        return place
    return _place_of_file(frame.f_code.co_filename, len(_by_place))


@lru_cache(4096)
def _place_of_file(file: str, count: int) -> str | None:  # noqa: ARG001
    ordinary = _by_place.keys() - _names.values()
    return next((place for place in ordinary if file == place or file.startswith(f"{place}/")), None)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    """Take note of an audit event; never raise, as that would refuse what is done."""
    try:
        if event == "open":
            path, mode, flags = arguments
            writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool(int(flags or 0) & _WRITING)
            note(path, written=writes, depth=2)
        elif event in ("sqlite3.connect", "ctypes.dlopen"):
            note(arguments[0], depth=2)
        elif event == "import" and arguments[1] is not None:  # compiled
            note(arguments[1], depth=2, imported=True)
        elif event in _ESCAPES and _running:
            _note_escape(sys._getframe(1), _ESCAPES[event])
    except Exception:
        return


def _note_escape(frame: FrameType | None, problem: str) -> None:
    """Record a program or connection that a plug-in starts itself, through Python's own modules or a client."""
    while frame is not None:
        if (place := _place(frame)) is not None:
            _by_place[place].problems[str(frame.f_globals.get("__name__"))] = problem
            return
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if not frame.f_code.co_filename.startswith((_PYTHON, "<frozen")) and top not in _CLIENTS:
            return
        frame = frame.f_back


def listing(place: str, folder: str, modules: Collection[str]) -> tuple[dict[str, list[Any] | None], str]:
    """Return the files that some code has read.

    Args:
        place: as in `watch`.
        folder: that paths are given from.
        modules: of the code, by name; empty: all of the place.

    Returns:
        [SHA-256, size, time of change] by path, None for a missing file; and what else it learned or "".
    """
    reads = reads_of(place)
    files: dict[str, list[Any] | None] = {}
    problems = {text for module, text in reads.problems.items() if not modules or module in modules}
    for path, stamp in sorted(reads.files.items()):
        if modules and reads.readers[path].isdisjoint(modules):
            continue
        if stamp_of(path) != stamp:
            problems.add(f"{os.path.basename(path)} changed during the run")
        else:
            files[_from(path, folder)] = None if stamp is None else [sha_of(path, stamp), *stamp]
    return files, ", ".join(sorted(problems))


def _from(path: str, folder: str) -> str:
    """Return a path from a folder; the path itself where they have nothing in common."""
    shared = os.path.commonpath([path, folder])
    return path if shared == os.path.dirname(shared) else os.path.relpath(path, folder)


def is_current(path: str, known: list[Any] | None) -> bool:
    """Return True if a file is still the one of a `listing`."""
    stamp = stamp_of(path)
    if stamp is None or known is None:
        return stamp is None and known is None
    return [*stamp] == known[1:] or (stamp[0] == known[1] and sha_of(path, stamp) == known[0])


def noting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a library that opens files itself, with a note of those that its arguments name."""
    import functools

    @functools.wraps(function, updated=())
    def noted(*arguments: Any, **options: Any) -> Any:
        for value in (*arguments[:2], *options.values()):
            for path in value if isinstance(value, list) else [value]:
                for file in _files(path):
                    note(file)
        return function(*arguments, **options)

    return noted


def _files(path: Any) -> list[str]:
    """Return the files that a path names: itself, or those in the folder."""
    if not isinstance(path, str | os.PathLike):
        return []
    name = os.fsdecode(path)
    if os.path.isdir(name):
        return [os.path.join(folder, file) for folder, _, files in os.walk(name) for file in files]
    return [name] if os.path.isfile(name) else []
