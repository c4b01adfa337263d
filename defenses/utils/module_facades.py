"""The modules `sys` and `importlib` as the code of a plug-in sees them: with its own path and its own modules."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Collection, Iterator, MutableMapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from pathlib import Path


class _Facade(ModuleType):
    """Stand-in of a module, with some other values."""

    def __init__(self, real: ModuleType, **names: object):
        super().__init__(real.__name__, real.__doc__)
        vars(self).update(names)
        vars(self)["_real"] = real

    def __getattr__(self, name: str) -> object:
        return getattr(vars(self)["_real"], name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in vars(self):
            vars(self)[name] = value
        else:
            setattr(vars(self)["_real"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(vars(self)["_real"], name)

    def __dir__(self) -> list[str]:
        return dir(vars(self)["_real"])


class _Modules(MutableMapping[str, Any]):
    """`sys.modules`, the plug-in's modules under their plain names and before all others; new ones are the plug-in's.

    Args:
        private: package of the plug-in's modules.
    """

    def __init__(self, private: str):
        self._private = private

    def _key(self, name: str) -> str:
        return name if name.startswith(self._private) else f"{self._private}.{name}"

    def __getitem__(self, name: str) -> object:
        key = self._key(name)
        return sys.modules[key if key in sys.modules else name]

    def __setitem__(self, name: str, module: Any) -> None:
        sys.modules[self._key(name)] = module

    def __delitem__(self, name: str) -> None:
        key = self._key(name)
        del sys.modules[key if key in sys.modules else name]

    def __iter__(self) -> Iterator[str]:
        mark = f"{self._private}."
        return iter({name.removeprefix(mark): None for name in list(sys.modules)})

    def __len__(self) -> int:
        return len(sys.modules)


def facades(space: Any) -> dict[str, Any]:
    """Return the modules by name that a plug-in gets in place of the real ones.

    Args:
        space: the plug-in's `defenses.utils.namespaces.Namespace`.
    """

    def import_module(name: str, package: str | None = None) -> Any:
        return space.import_(importlib.util.resolve_name(name, package), fromlist=("__name__",))

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        private = not name.startswith(".") and space.finds(name.partition(".")[0])
        return importlib.util.find_spec(f"{space.name}.{name}" if private else name, package)

    def spec_from_file_location(name: str, *arguments: Any, **more: Any) -> ModuleSpec | None:
        private = name if name.startswith(space.name) else f"{space.name}.{name}"
        return importlib.util.spec_from_file_location(private, *arguments, **more)

    def module_from_spec(spec: ModuleSpec) -> ModuleType:
        module = importlib.util.module_from_spec(spec)
        if spec.name.startswith(space.name):
            vars(module)["__builtins__"] = space.builtins
        return module

    names = {"find_spec": find_spec, "module_from_spec": module_from_spec}
    util = _Facade(importlib.util, spec_from_file_location=spec_from_file_location, **names)
    path = [str(space.folder), *sys.path, os.getcwd()]
    return {
        "sys": _Facade(sys, path=path, modules=_Modules(space.name)),
        "importlib": _Facade(importlib, import_module=import_module, util=util, __import__=space.import_),
        "importlib.util": util,
    }


def private_entries(path: Sequence[str], folder: Path, shared: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the folders of a plug-in's path that are its own: those before the first shared one, and the others.

    Args:
        path: `sys.path` of the plug-in.
        folder: of the plug-in, which is its own even where Python looks there too.
        shared: entries of Python's `sys.path` when the plug-in was first imported.
    """
    before: list[str] = []
    after: list[str] = []
    entries = before
    for entry in map(os.fspath, path):
        if entry != str(folder) and (entry in shared or entry in sys.path):
            entries = after
        else:
            entries.append(os.path.abspath(entry))
    return before, after


def is_importable(top: str) -> bool:
    """Return True if Python itself finds a top-level module."""
    if top in sys.modules:
        return True
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None
