"""User-defined classes and functions, "module:Class" or "path/to/file.py:Class": loading, and hashes of code."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import isclass, isroutine, signature
from pathlib import Path
from typing import Any, NoReturn

from defenses.utils.errors import UserError, unknown
from defenses.utils.merged_modules import MERGED
from defenses.utils.module_facades import is_importable
from defenses.utils.namespaces import namespace_of

_PUREBENCH = Path(__file__).parents[2]


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
            module = _from_file(Path(where)) if where.endswith(".py") else _imported(where)
    except UserError:
        raise
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError(f'cannot import "{where}" of "{name}": {error}; it must be importable or a .py file') from error
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f'importing "{where}" failed: {line_of(error)}') from error
    if not hasattr(module, attribute):
        raise unknown(f"name in {where}", attribute, [n for n in vars(module) if not n.startswith("_")])
    return getattr(module, attribute)


def takes_seed(target: Any) -> bool:
    """Return True if a class or function has a parameter `training_seed`."""
    return (isclass(target) or isroutine(target)) and "training_seed" in signature(target).parameters


def code_hash(name: str) -> str:
    """Return a hash of a plug-in's file and of the modules beside it that it imports, directly or not.

    Args:
        name: "module:Class" or "file.py:Class".

    Returns:
        Hex digest; "" if there is no source, as of an extension module.
    """
    source = source_file(name.rpartition(":")[0])
    if source is None or not source.is_file() or source.suffix != ".py":
        return ""
    parts = sorted((str(Path(*f.parts[len(source.parent.parts) :])), _sha(f)) for f in _with_imports(source))
    return hashlib.sha256(repr(parts).encode()).hexdigest() if len(parts) > 1 else _sha(source)


def _with_imports(source: Path) -> set[Path]:
    """Return a file with the modules beside it that it imports, directly or not."""
    files, waiting = {source}, [source]
    while waiting:
        new = set(_imports_beside(waiting.pop())) - files
        files |= new
        waiting += new
    return files


def source_file(where: str) -> Path | None:
    """Return the source of a plug-in's file or module, without importing anything; None if there is none.

    Args:
        where: "path/to/file.py", or "package.module": in the current folder, or installed.
    """
    if where.endswith(".py"):
        return Path(where)
    top, *rest = where.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    if (file := _in_current_folder(where)) is not None:
        return file
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    folders = spec.submodule_search_locations or ()
    return next((file for folder in folders if (file := _module_file(Path(folder), rest))), None)


def _in_current_folder(where: str) -> Path | None:
    """Return the file of a module below the current folder, unless purebench has one of this name; None without one."""
    top, *rest = where.split(".")
    file = _module_file(Path.cwd(), (top, *rest))
    if file is None or (top in MERGED and _module_file(_PUREBENCH, (top, *rest))):
        return None
    # As in Python, a folder without __init__.py counts where nothing else has its name.
    is_module = not rest or (Path.cwd() / top / "__init__.py").is_file()
    return file if is_module or top in MERGED or not is_importable(top) else None


def _module_file(folder: Path, parts: Sequence[str]) -> Path | None:
    target = folder.joinpath(*parts)
    return next((f for f in (target / "__init__.py", target.with_suffix(".py")) if f.is_file()), None)


def _imports_beside(file: Path) -> Iterator[Path]:
    """Yield the modules in a file's own folder that it imports."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # not importable, so not in use
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level <= 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
        for name in names:
            top = file.parent / name.partition(".")[0]
            yield from (f for f in (top.with_suffix(".py"), top / "__init__.py") if f.is_file())


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    space = namespace_of(path.parent)
    return space.load(space.folder / path.name)


def _imported(where: str) -> Any:
    if _in_current_folder(where) is None:
        return importlib.import_module(where)
    return namespace_of(Path.cwd()).import_(where, fromlist=("__name__",))


def _sha(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def line_of(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, SystemExit):
        return f'it ends the program (exit code {error.code}); keep that under if __name__ == "__main__"'
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
