"""User-defined classes and functions, "module:Class" or "path/to/file.py:Class"."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from inspect import isclass, isroutine, signature
from pathlib import Path
from typing import Any, NoReturn

from defenses.utils.errors import UserError, unknown
from defenses.utils.file_reads import watch
from defenses.utils.library_reads import hook_libraries
from defenses.utils.namespaces import namespace_of
from defenses.utils.plugin_code import code_hash, in_current_folder, source_of
from defenses.utils.replacements import noting_replacements

__all__ = ["code_hash", "forbid_exit", "line_of", "load_object", "source_of", "takes_seed"]

_LINES = 3  # of the message of an error: torch names missing weights below the first


@contextmanager
def forbid_exit() -> Iterator[None]:
    """Turn any exit of this process by user-defined code into `SystemExit`."""
    exit_process, process = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            exit_process(status)  # a child process may end
        raise SystemExit(status)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = exit_process


def load_object(name: str) -> Any:
    """Return the object "module:name" or "file.py:name".

    Args:
        name: both parts.

    Raises:
        UserError: it cannot be imported, or there is no such name in it.
    """
    where, _, attribute = name.rpartition(":")
    if not where or not attribute:
        raise UserError(f'"{name}" names nothing; write module:Class or path/to/file.py:Class')
    try:
        with forbid_exit():
            module = _from_file(name) if where.endswith(".py") else _imported(name)
    except UserError:
        raise
    except (ModuleNotFoundError, FileNotFoundError) as error:
        moved = _present_name(where, attribute)
        remedy = f"did you mean {moved}?" if moved else _import_remedy(where, error)
        raise UserError(f'cannot import "{where}" of "{name}": {error}; {remedy}') from error
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f'importing "{where}" failed: {line_of(error)}') from error
    if not hasattr(module, attribute):
        raise unknown(f"name in {where}", attribute, [n for n in vars(module) if _is_offered(module, n)])
    return getattr(module, attribute)


def _import_remedy(where: str, error: ImportError | OSError) -> str:
    """Return what helps where a module or file cannot be imported: it is missing, or something that it imports is."""
    missing = error.name if isinstance(error, ImportError) else None
    if missing is None or f"{where}.".startswith(f"{missing}."):
        return "it must be importable or a .py file"
    return f"install {missing}, or put it beside the file that imports it"


def _is_offered(module: Any, name: str) -> bool:
    """Return True for a name that can be meant: callable, and no class or function that the module imports."""
    value = getattr(module, name)
    imported = (isclass(value) or isroutine(value)) and getattr(value, "__module__", "") != module.__name__
    return callable(value) and not imported and not name.startswith("_")


def _present_name(where: str, attribute: str) -> str:
    """Return where a class or function of purebench is now, as "module:name"; "" for other modules, and without one."""
    package = where.partition(".")[0]
    if package not in ("bench", "defenses"):
        return ""
    root = Path(__file__).parents[2]
    definition = re.compile(rf"^(class|def) {re.escape(attribute)}\b", re.MULTILINE)
    for file in sorted((root / package).rglob("*.py")):
        if definition.search(file.read_text(encoding="utf-8")):
            return f"{'.'.join(file.relative_to(root).with_suffix('').parts)}:{attribute}"
    return ""


def takes_seed(target: object) -> bool:
    """Return True if a class or function has a parameter `training_seed`."""
    return (isclass(target) or isroutine(target)) and "training_seed" in signature(target).parameters


def _from_file(name: str) -> object:
    path = Path(name.rpartition(":")[0]).expanduser()
    if not path.is_file():
        where = "" if path.is_absolute() else f" from the current folder, {Path.cwd()}"
        raise FileNotFoundError(f"there is no file {path}{where}")
    space = namespace_of(path.parent)
    file = space.folder / path.name
    with nullcontext() if file in space.hashes else noting_replacements(name):
        return space.load(file)


def _imported(name: str) -> object:
    where = name.rpartition(":")[0]
    if in_current_folder(where) is None:
        source = source_of(where)
        if source is None or source.ours or where in sys.modules:
            return importlib.import_module(where)
        watch(source.place)
        hook_libraries()
        try:
            with noting_replacements(name):
                return importlib.import_module(where)
        finally:
            hook_libraries()
    space = namespace_of(Path.cwd())
    with nullcontext() if f"{space.name}.{where}" in sys.modules else noting_replacements(name):
        return space.import_(where, fromlist=("__name__",))


def line_of(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, SystemExit):
        return f'it ends the program (exit code {error.code}); keep that under if __name__ == "__main__"'
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    more = f" (and {len(lines) - _LINES} lines more)" if len(lines) > _LINES else ""
    return f"{type(error).__name__}: {' '.join(lines[:_LINES])}{more}" if lines else type(error).__name__
