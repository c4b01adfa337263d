"""Hashes of the code of plug-ins, of the files that it imports from its own folder included."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from defenses.utils.merged_modules import MERGED
from defenses.utils.module_facades import is_importable
from defenses.utils.source_code import hashes, imported_names

_PUREBENCH = Path(__file__).parents[2]
_PYTHON = sysconfig.get_path("stdlib")
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class PluginCode:
    """The source of a plug-in.

    Args:
        file: its file.
        root: folder from which its modules are imported.
        ours: True if it is of purebench.
        private: True if it is a private module of its folder, see `defenses.utils.namespaces`.
    """

    file: Path
    root: Path
    ours: bool = False
    private: bool = False

    @property
    def is_installed(self) -> bool:
        """Return True if other distributions lie beside it."""
        return self.ours or bool(_INSTALLED & {*self.root.parts})

    @property
    def place(self) -> str:
        """Return the folder of its code, or the file where there is one alone; see `defenses.utils.file_reads`."""
        root = self.root.resolve()
        return str(root if self.private else root / self.file.relative_to(self.root).parts[0])


def source_of(where: str) -> PluginCode | None:
    """Return the source of a plug-in's file or module, without importing anything; None if there is none.

    Args:
        where: "path/to/file.py", or "package.module": in the current folder, or installed.
    """
    if where.endswith(".py"):
        file = Path(where).expanduser()
        return PluginCode(file, file.parent, private=True)
    parts = where.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    if (here := in_current_folder(where)) is not None:
        return PluginCode(here, Path.cwd(), private=True)
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    ours = parts[0] in MERGED
    for folder in map(Path, spec.submodule_search_locations or ()):
        if (found := module_file(folder, parts[1:])) is not None:
            return PluginCode(found, folder.parent, ours)
    return PluginCode(Path(spec.origin), Path(spec.origin).parent, ours) if spec.origin and len(parts) == 1 else None


def is_users(module: str) -> bool:
    """Return True if a loaded module is neither purebench's nor Python's nor of an installed distribution."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    if module.partition(".")[0] in MERGED or not file:
        return module == "__main__"
    return not _INSTALLED & {*Path(file).parts} and not file.startswith(_PYTHON)


def in_current_folder(where: str) -> Path | None:
    """Return the file of a module below the current folder, unless purebench has one of this name; None without one."""
    top, *rest = where.split(".")
    file = module_file(Path.cwd(), (top, *rest))
    if file is None or (top in MERGED and module_file(_PUREBENCH, (top, *rest))):
        return None
    # As in Python, a folder without __init__.py counts where nothing else has its name.
    is_module = not rest or (Path.cwd() / top / "__init__.py").is_file()
    return file if is_module or top in MERGED or not is_importable(top) else None


def module_file(folder: Path, parts: Sequence[str]) -> Path | None:
    """Return the file of a module or package below a folder; None if there is none."""
    target = folder.joinpath(*parts)
    candidates = (target / "__init__.py", *([target.with_suffix(".py")] if parts else []))
    return next((f for f in candidates if f.is_file()), None)


def code_hash(name: str) -> str:
    """Return a hash of the code that a plug-in reaches, without comments and docstrings.

    Args:
        name: "module:Class" or "file.py:Class".

    Returns:
        Hex digest; "" if there is no source, as of an extension module. Of purebench's own: of the whole file.
    """
    source = source_of(name.rpartition(":")[0])
    if source is None or not source.file.is_file() or source.file.suffix != ".py":
        return ""
    if source.ours:
        return hashlib.sha256(source.file.read_bytes()).hexdigest()
    return hashlib.sha256(repr(sorted(code_parts(name).items())).encode()).hexdigest()


def code_parts(name: str) -> dict[str, str]:
    """Return a hash of each file that a plug-in's code imports from its own folder, directly or not.

    Args:
        name: "module:Class" or "file.py:Class".

    Returns:
        Hashes by path in the folder, of the statements that the class or function reaches; without source: none.
    """
    where, _, target = name.rpartition(":")
    source = source_of(where)
    if source is None or source.ours or source.file.suffix != ".py" or not source.file.is_file():
        return {}
    files = {path: file.read_bytes() for path, file in _files(source).items()}
    return hashes(files, [target])


def _files(source: PluginCode) -> dict[str, Path]:
    """Return the files of a plug-in's code, by path in its folder."""
    first = source.file.relative_to(source.root)
    files, waiting = {first.as_posix(): source.file}, [first]
    while waiting:
        path = waiting.pop()
        for name, file in _imported_by(path, files[path.as_posix()], source):
            if name.as_posix() not in files:
                files[name.as_posix()] = file
                waiting.append(name)
    return files


def _imported_by(path: Path, file: Path, source: PluginCode) -> Iterator[tuple[Path, Path]]:
    """Yield (path in the folder, file) of the modules that a file imports from it.

    Args:
        path: of the file in the folder.
        file: the file.
        source: of the plug-in.
    """
    package = path.parent.parts
    for level, module, names in imported_names(file.read_bytes()):
        parts = tuple(module.split(".")) if module else ()
        if level:
            parts = (*package[: len(package) - level + 1], *parts)
        longer = [parts[:i] for i in range(1, len(parts) + 1)] + [(*parts, name) for name in names]
        for root in _roots(parts[:1], source, relative=level > 0):
            found = [f for p in longer if p and (f := module_file(root, p)) is not None]
            yield from ((f.relative_to(root), f) for f in found)
            if found:
                break


def _roots(top: tuple[str, ...], source: PluginCode, *, relative: bool) -> list[Path]:
    """Return the folders in which a module is looked for."""
    if source.is_installed:
        first = source.file.relative_to(source.root).parts[:1]
        return [source.root] if top == first else []
    shared = relative or not top or is_importable(top[0])
    return [source.root] if shared or source.root == Path.cwd() else [source.root, Path.cwd()]
