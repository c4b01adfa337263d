"""User-defined classes and functions, "module:Class" or "path/to/file.py:Class": loading, and hashes of code."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import isclass, isroutine, signature
from pathlib import Path
from typing import Any, NoReturn

from defenses.utils.errors import UserError, unknown


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
    source = _source(name.rpartition(":")[0])
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


def _source(where: str) -> Path | None:
    if where.endswith(".py"):
        return Path(where)
    try:
        spec = importlib.util.find_spec(where)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


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


def _imported(where: str) -> Any:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(where)


def _from_file(path: Path) -> Any:
    sha = _sha(path)
    for file in _with_imports(path) - {path}:
        _forget_if_changed(file.resolve())
    return _module_from_file(path, sha, code_hash(f"{path}:"))


_hash_at_import: dict[Path, str] = {}  # hash of each module beside a plug-in when it was imported


def _forget_if_changed(file: Path) -> None:
    """Remove a module from those imported if its file has changed since."""
    sha = _sha(file)
    if _hash_at_import.setdefault(file, sha) != sha:
        _hash_at_import[file] = sha
        for name in [n for n, m in sys.modules.items() if getattr(m, "__file__", None) == str(file)]:
            del sys.modules[name]


@functools.cache
def _module_from_file(path: Path, sha: str, code: str) -> Any:  # noqa: ARG001
    # Named after its contents, so that files of one name do not collide and the folder does not matter.
    spec = importlib.util.spec_from_file_location(f"purebench_plugin_{path.stem}_{sha[:8]}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(path.parent.resolve()) not in sys.path:
        sys.path.append(str(path.parent.resolve()))  # for imports of modules beside it, as by a script
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


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
