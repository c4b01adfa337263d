"""Modules of plug-ins under private names: the code of a folder imports the folder's modules, no other code does.

The modules of a folder are those of a package of a private name, and their `__builtins__` have an `__import__` of their
own, which looks in the folder first: Python calls it for every import statement in their code, also in functions that
run later.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import re
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

from defenses.utils.file_reads import watch
from defenses.utils.hub import hook_hub
from defenses.utils.library_reads import hook_libraries
from defenses.utils.merged_modules import MERGED, merged
from defenses.utils.module_facades import facades, is_importable, private_entries
from defenses.utils.reads import forget, reads_of
from defenses.utils.replacements import see_libraries
from defenses.utils.unpickling import find_classes_by

PREFIX = "purebench_plugin_"

_lock = threading.RLock()
_by_folder: dict[Path, Namespace] = {}
_by_name: dict[str, Namespace] = {}


class Namespace:
    """Modules of the plug-ins in a folder, as the files were when they were first imported.

    Args:
        folder: absolute path.
        number: of namespaces that the folder has had before.
    """

    def __init__(self, folder: Path, number: int = 0):
        self.folder, self.number = folder, number
        self.name = f"{PREFIX}{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}_{number}"
        self.hashes: dict[Path, str] = {}  # of the source files that were imported
        self.imports: dict[str, set[str]] = {}  # modules by the module that imports them
        self._shared = frozenset(sys.path)
        self.builtins = {**vars(builtins), "__import__": self.import_}
        self.facades = facades(self)
        package = ModuleType(self.name)
        package.__path__ = [str(folder)]
        sys.modules[self.name] = package
        _by_name[self.name] = self
        watch(str(folder), self.name)

    def _entries(self) -> tuple[list[str], list[str]]:
        """Return the plug-in's own folders of its `sys.path`, see `private_entries`; its code may change them."""
        return private_entries(self.facades["sys"].path, self.folder, self._shared)

    def load(self, file: Path) -> ModuleType:
        """Return the module of a file in the folder, imported once."""
        name = f"{self.name}.{file.stem}"
        spec = self._spec(file.stem, [str(self.folder)]) if file.stem.isidentifier() else None
        if spec is not None and spec.origin == str(file):
            return importlib.import_module(name)
        name = f"{self.name}.{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}__file"  # "a.b.py", or a.py beside a/__init__.py
        with _lock:
            return sys.modules[name] if name in sys.modules else self._load_by_path(name, file)

    def _load_by_path(self, name: str, file: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, file, loader=_Loader(name, str(file)))
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    def changed(self) -> bool:
        """Return True if a file differs from what was imported, in the repositories that it loads too."""
        tops, waiting = {self.name}, [self]
        for space in waiting:
            if any(not f.is_file() or _sha(f.read_bytes()) != sha for f, sha in list(space.hashes.items())):
                return True
            new = {module.partition(".")[0] for found in space.imports.values() for module in found} - tops
            waiting += [_by_name[top] for top in new]
            tops |= new
        return any(reads_of(str(space.folder)).changed() for space in waiting)

    def import_(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] | None = (), level: int = 0
    ) -> object:
        """Import a module for code of the plug-in; as `__import__`."""
        importer = globals.get("__name__") if isinstance(globals, dict) else None
        if level:
            package = globals.get("__package__") if isinstance(globals, dict) else None
            self._note(importer, f"{package}.".rsplit(".", level)[0] + (f".{name}" if name else ""), fromlist)
        else:
            top = name.partition(".")[0]
            if self.finds(top):
                self._note(importer, f"{self.name}.{name}", fromlist)
            if top in MERGED and self.finds(top):
                return merged(name, tuple(fromlist or ()), self.name)
            if self.finds(top):
                return self._import_private(name, top, fromlist)
        module = builtins.__import__(name, globals, locals, fromlist or (), level)
        hook_libraries()
        see_libraries()
        hook_hub(_is_plugin_running, _load_hubconf)
        return module if level else self.facades.get(name if fromlist else name.partition(".")[0], module)

    def _note(self, importer: Any, module: str, names: Sequence[str] | None) -> None:
        """Record an import; without the name of the importing module, it is the innermost one that runs."""
        found = self.imports.setdefault(importer if is_private(importer) else _calling_module(), set())
        parts = module.split(".")
        found.update(".".join(parts[:i]) for i in range(2, len(parts) + 1))
        found.update(f"{module}.{name}" for name in names or ())

    def reached_from(self, file: Path) -> dict[str, tuple[Path, str]]:
        """Return (file, SHA-256), by module, of what the code of a file has imported, directly or not; itself too."""
        by_name = {n: Path(str(getattr(m, "__file__", ""))) for n, m in list(sys.modules.items()) if is_private(n)}
        waiting = [name for name, path in by_name.items() if path == file and name.startswith(f"{self.name}.")]
        found: dict[str, tuple[Path, str] | None] = {}
        while waiting:
            name = waiting.pop()
            if name in by_name and name not in found:
                space, path = _by_name[name.partition(".")[0]], by_name[name]
                found[name] = (path, space.hashes[path]) if path in space.hashes else None
                waiting += space.imports.get(name, ())
        return {name: pair for name, pair in found.items() if pair is not None}

    def _import_private(self, name: str, top: str, fromlist: Sequence[str] | None) -> object:
        sys.modules[self.name].__path__[:] = [folder for entries in self._entries() for folder in entries]
        try:
            leaf = builtins.__import__(f"{self.name}.{name}", None, None, tuple(fromlist or ("__name__",)), 0)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith(f"{self.name}."):
                raise
            plain = plain_name(error.name or "")
            raise ModuleNotFoundError(f"No module named {plain!r}", name=plain) from None
        return leaf if fromlist else sys.modules[f"{self.name}.{top}"]

    def finds(self, top: str) -> bool:
        """Return True if a top-level name is a module of the plug-in: in its folder, or where it has sys.path look."""
        if f"{self.name}.{top}" in sys.modules:
            return True
        if top in sys.builtin_module_names:
            return False
        before, after = self._entries()
        spec = self._spec(top, before)
        if spec is not None and (spec.origin is not None or top in MERGED):
            return True
        # A folder without __init__.py, or at the end of the path, is one only where nothing else has the name.
        found = spec is not None or self._spec(top, after) is not None
        return found and (top in MERGED or not is_importable(top))

    def _spec(self, top: str, folders: Sequence[str]) -> ModuleSpec | None:
        return PathFinder.find_spec(f"{self.name}.{top}", list(folders)) if folders else None


class _Loader(SourceFileLoader):
    """A loader of a plug-in's module, from its source alone: cached bytecode is told from others by whole seconds."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the file as it is now."""
        source = self.get_data(self.path)
        _by_name[fullname.partition(".")[0]].hashes[Path(self.path)] = _sha(source)
        code: CodeType = self.source_to_code(source, self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run the code, with the plug-in's `__import__`."""
        vars(module)["__builtins__"] = _by_name[module.__name__.partition(".")[0]].builtins
        super().exec_module(module)


class _Finder:
    """Finder of the modules of plug-ins, by their private names."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Return where a module is, and None for any other name; as in `importlib.abc.MetaPathFinder`."""
        if not is_private(fullname) or path is None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
            spec.cached = None
        return spec


def namespace_of(folder: Path) -> Namespace:
    """Return the namespace of a folder; a new one if a file has changed since it was imported or read."""
    folder = folder.resolve()
    with _lock:
        present = _by_folder.get(folder)
        if present is None or present.changed():
            if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
                sys.meta_path.insert(0, _Finder())
            find_classes_by(_module_of_pickle)
            hook_hub(_is_plugin_running, _load_hubconf)
            importlib.invalidate_caches()
            forget(str(folder))
            _by_folder[folder] = Namespace(folder, 0 if present is None else present.number + 1)
        return _by_folder[folder]


def imported_files(folder: str, file: Path) -> dict[str, tuple[Path, str]]:
    """Return the files that a plug-in has imported from its folder and from repositories of `torch.hub`.

    Args:
        folder: of the plug-in.
        file: of the plug-in.

    Returns:
        (file, SHA-256 of what was imported) by module.
    """
    space = _by_folder.get(Path(folder))
    return {} if space is None else space.reached_from(file)


def calling_namespace() -> Namespace | None:
    """Return the namespace of the code that is running, or that has called a library; None: it is purebench's own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__")
        top = name.partition(".")[0] if isinstance(name, str) else ""
        if top in _by_name:
            return _by_name[top]
        if top in MERGED and not str(name).startswith("defenses.utils."):
            return None
        frame = frame.f_back
    return None


def _is_plugin_running() -> bool:
    return calling_namespace() is not None


def _load_hubconf(path: str) -> ModuleType:
    """Return the module of a repository, which the code that is running loads, as a plug-in of its own."""
    file, caller = Path(path).resolve(), calling_namespace()
    module = namespace_of(file.parent).load(file)
    if caller is not None:
        caller._note(None, module.__name__, ())
    return module


def _calling_module() -> str:
    """Return the name of the innermost module of a plug-in that runs; "" without one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_private(name := frame.f_globals.get("__name__")):
            return str(name)
        frame = frame.f_back
    return ""


def is_private(module: object) -> bool:
    """Return True if the name of a module is that of a plug-in's."""
    return isinstance(module, str) and module.startswith(PREFIX)


def plain_name(module: str) -> str:
    """Return the name of a module as the plug-in's code knows it, without the private package."""
    return module.partition(".")[2] if is_private(module) else module


def _module_of_pickle(module: str) -> str:
    """Return the name under which a module that a pickle names is imported."""
    space = calling_namespace()
    if space is None or (is_private(module) and module in sys.modules):
        return module
    module = plain_name(module)  # written by another process
    top = module.partition(".")[0]
    if top in MERGED and is_importable(module):
        return module
    private = f"{space.name}.{module}"
    return private if private in sys.modules or space.finds(top) else module


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
