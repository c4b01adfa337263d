"""Files, folders and environment variables that the code of plug-ins reads, as far as this process knows."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from defenses.utils.reads import (
    PYTHON,
    Reads,
    Stamp,
    by_place,
    is_running,
    lock,
    names,
    place_of,
    reader_of,
    reads_of,
    sha_of,
    stamp_of,
)

_WRITING = os.O_WRONLY | os.O_RDWR
_PUREBENCH = str(Path(__file__).parents[2])
_SKIPPED = (PYTHON, *(f"{_PUREBENCH}/{top}/" for top in ("bench", "defenses", "leaderboards")))
_SKIPPED += ("/proc/", "/sys/", "/dev/")
_PROCESS = "starts a process"
_ESCAPES = {
    "subprocess.Popen": "starts a program",
    "os.system": "starts a program",
    "os.posix_spawn": _PROCESS,
    "os.fork": _PROCESS,
    "socket.connect": "opens a connection",
}
_CLIENTS = ("requests", "urllib3", "httpx", "httpcore", "anyio")  # libraries through which code opens connections
_OF_ENVIRONMENT = {function.__code__.co_filename for function in (os.getenv, Mapping.get)}
_MANY = 20  # variables: code that reads more copies them all
_this_thread = threading.local()


def watch(place: str, package: str = "") -> Reads:
    """Record what some code reads, from now on.

    Args:
        place: folder or file of the code.
        package: private package of its modules; "": they have ordinary names.

    Returns:
        The record, which grows.
    """
    with lock:
        if not by_place:
            sys.addaudithook(_on_event)
            _hook_environment()
            _hook_stat()
        if package:
            names[package] = place
        return by_place.setdefault(place, Reads())


def note(
    path: object, *, written: bool = False, imported: bool = False, folder: bool = False, frame: FrameType | None = None
) -> None:
    """Record that the running code opens a file or lists a folder, if it is a plug-in's.

    Args:
        path: of the file or folder.
        written: it is opened for writing.
        imported: it is a compiled module; that Python reads source files is no matter here.
        folder: its names are read.
        frame: of the code that opens it; None: the caller of the caller.
    """
    if not isinstance(path, str | bytes | os.PathLike) or getattr(_this_thread, "noting", False):
        return
    reads, module = reader_of(frame or sys._getframe(2), imported=imported)
    if reads is None:
        return
    name = os.path.abspath(os.fsdecode(path))
    if name.startswith(_SKIPPED) or name.endswith(".pyc") or "/site-packages/" in name or name == PYTHON:
        return
    if folder:
        _add(reads, f"{name.rstrip('/')}/", module)
    elif os.path.isdir(name):
        return
    elif written:
        reads.written.add(name)
        reads.files.pop(name, None)
    elif name not in reads.written:
        _add(reads, name, module)


def _add(reads: Reads, name: str, module: str) -> None:
    _this_thread.noting = True  # listing a folder is an event of its own
    try:
        if name not in reads.files:
            reads.files[name] = stamp_of(name)
        reads.readers.setdefault(name, set()).add(module)
    finally:
        _this_thread.noting = False


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    """Take note of an audit event; never raise, as that would refuse what is done."""
    try:
        if event == "open":
            path, mode, flags = arguments
            writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool(int(flags or 0) & _WRITING)
            note(path, written=writes, frame=sys._getframe(1))
        elif event in ("os.listdir", "os.scandir"):
            note(arguments[0] or ".", folder=True, frame=sys._getframe(1))
        elif event in ("sqlite3.connect", "ctypes.dlopen"):
            note(arguments[0], frame=sys._getframe(1))
        elif event == "import" and arguments[1] is not None:  # compiled
            note(arguments[1], imported=True, frame=sys._getframe(1))
        elif event in _ESCAPES and is_running():
            clients = ("torch",) if event == "os.fork" else _CLIENTS  # torch reads data in processes of its own
            _note_escape(sys._getframe(1), _ESCAPES[event], clients)
    except Exception:
        return


def _note_escape(frame: FrameType | None, problem: str, clients: Collection[str]) -> None:
    """Record a program or connection that a plug-in starts itself, through Python's own modules or a client."""
    while frame is not None:
        if (place := place_of(frame)) is not None:
            by_place[place].problems.setdefault(str(frame.f_globals.get("__name__")), problem)
            return
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if not frame.f_code.co_filename.startswith((PYTHON, "<frozen")) and top not in clients:
            return
        frame = frame.f_back


def _hook_environment() -> None:
    """Take note of the environment variables that a plug-in asks for itself, from now on."""
    kind: Any = type(os.environ)
    ask = kind.__getitem__

    def asked(environment: object, name: object) -> object:
        if isinstance(name, str | bytes) and any(
            environment is known for known in (os.environ, getattr(os, "environb", None))
        ):
            _note_variable(os.fsdecode(name), sys._getframe(1))
        return ask(environment, name)

    kind.__getitem__ = asked


def _hook_stat() -> None:
    """Take note of files that a plug-in asks whether they are there, or how large they are, from now on."""
    ask = os.stat

    @functools.wraps(ask)
    def asked(path: Any, *arguments: Any, **options: Any) -> Any:
        if not getattr(_this_thread, "noting", False):
            _note_question(path, sys._getframe(1))
        return ask(path, *arguments, **options)

    for functions in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if ask in functions:
            functions.add(asked)
    os.stat = asked


def _note_question(path: object, frame: FrameType | None) -> None:
    """Record a file that a plug-in's own code asks for, through Python's own modules; reading it counts besides."""
    while frame is not None and frame.f_code.co_filename.startswith((PYTHON, "<frozen os", "<frozen generic")):
        frame = frame.f_back
    if frame is None or not isinstance(path, str | bytes | os.PathLike) or (place := place_of(frame)) is None:
        return
    name = os.path.abspath(os.fsdecode(path))
    # Python asks for source files itself, as for a traceback.
    if not name.startswith(_SKIPPED) and "/site-packages/" not in name and not name.endswith((".py", ".pyc")):
        _add(by_place[place], f"?{name}", str(frame.f_globals.get("__name__")))


def _note_variable(name: str, frame: FrameType | None) -> None:
    """Record a variable that a plug-in's own code reads: what libraries read is the machine's, and no matter here."""
    while frame is not None and frame.f_code.co_filename in _OF_ENVIRONMENT:
        frame = frame.f_back
    if frame is None or (place := place_of(frame)) is None:
        return
    reads, module = by_place[place], str(frame.f_globals.get("__name__"))
    _add(reads, f"${name}", module)
    variables = [known for known in reads.files if known.startswith("$")]
    if len(variables) > _MANY:
        reads.problems[module] = "reads all environment variables"
        for variable in variables:
            del reads.files[variable]


def listing(place: str, folder: str, modules: Collection[str]) -> tuple[dict[str, list[object] | None], str]:
    """Return the files that some code has read.

    Args:
        place: as in `watch`.
        folder: that paths are given from.
        modules: of the code, by name; empty: all of the place.

    Returns:
        [SHA-256, *stamp] by the names of `stamp_of`, None for what was missing; and what else it learned or "".
    """
    files: dict[str, list[object] | None] = {}
    problems: set[str] = set()
    repositories = {names[top] for module in modules if (top := module.partition(".")[0]) in names}  # of torch.hub
    for one in sorted({place, *repositories}):
        reads = reads_of(one)
        problems |= {text for module, text in reads.problems.items() if not modules or module in modules}
        for path, stamp in sorted(reads.files.items()):
            if modules and reads.readers[path].isdisjoint(modules):
                continue
            if path.startswith("?") and path[1:] in reads.written:
                continue
            if stamp_of(path) != stamp:
                problems.add(f"{name_of(path)} changed during the run")
            else:
                files[relative(path, folder)] = known_as(path, stamp)
    return files, ", ".join(sorted(problems))


def name_of(path: str) -> str:
    """Return the name of a file, folder or environment variable, for messages."""
    return os.path.basename(path.lstrip("?").rstrip("/"))


def relative(path: str, folder: str) -> str:
    """Return a path from a folder; the path itself where they have nothing in common; variables as they are."""
    mark, plain = ("?", path[1:]) if path.startswith("?") else ("", path)
    shared = "/" if path.startswith("$") else os.path.commonpath([plain, folder])
    if shared == os.path.dirname(shared):
        return path
    return mark + os.path.relpath(plain, folder) + ("/" if plain.endswith("/") else "")


def absolute(path: str, folder: str) -> str:
    """Return what `relative` was given."""
    if path.startswith("?"):
        return f"?{os.path.join(folder, path[1:])}"
    return path if path.startswith("$") else os.path.join(folder, path)


def known_as(path: str, stamp: Stamp | None) -> list[object] | None:
    """Return what a `listing` says of a file with a stamp."""
    return None if stamp is None else [sha_of(path, stamp), *stamp]


def is_current(path: str, known: list[object] | None) -> bool:
    """Return True if a file is still the one of a `listing`."""
    stamp = stamp_of(path)
    if stamp is None or known is None:
        return stamp is None and known is None
    return [*stamp] == known[1:] or (stamp[0] == known[1] and sha_of(path, stamp) == known[0])


def noting(function: Callable[..., object]) -> Callable[..., object]:
    """Return a function of a library that opens files itself, with a note of those that its arguments name."""

    @functools.wraps(function, updated=())
    def noted(*arguments: object, **options: object) -> object:
        for value in (*arguments[:2], *options.values()):
            for path in value if isinstance(value, list) else [value]:
                for file in _files(path):
                    note(file)
        return function(*arguments, **options)

    return noted


def _files(path: object) -> list[str]:
    """Return the files that a path names: itself, or those in the folder."""
    if not isinstance(path, str | os.PathLike):
        return []
    name = os.fsdecode(path)
    if os.path.isdir(name):
        return [os.path.join(folder, file) for folder, _, files in os.walk(name) for file in files]
    return [name] if os.path.isfile(name) else []
