"""The packages `bench` and `defenses` in a plug-in that has folders of these names: purebench's names, then its own."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

MERGED = ("bench", "defenses")


class _Merged(ModuleType):
    """Two modules as one, the names of the first before those of the second."""

    def __init__(self, name: str, private: str):
        super().__init__(name)
        vars(self)["_private"] = private

    def __getattr__(self, name: str) -> object:
        path, private = vars(self)["__name__"], vars(self)["_private"]
        found = [value for package in (path, f"{private}.{path}") if (value := _attribute(package, name)) is not _NONE]
        if not found:
            raise AttributeError(f"module {path!r} has no attribute {name!r}", name=name, obj=self)
        both = len(found) == 2 and all(isinstance(value, ModuleType) for value in found)
        return _Merged(f"{path}.{name}", private) if both else found[0]


_NONE = object()


def merged(name: str, names: tuple[str, ...], private: str) -> Any:
    """Return what an import statement of a plug-in binds, or takes names from.

    Args:
        name: of the module, as "defenses.core".
        names: that are imported from it; none for `import defenses.core`.
        private: package of the plug-in's modules.

    Raises:
        ModuleNotFoundError: neither purebench nor the plug-in has the module.
    """
    wanted = [n for n in names if n != "*"]
    ours = _module(name)
    if ours is not None and names and all(_attribute(name, n) is not _NONE for n in wanted):
        return ours
    theirs = _module(f"{private}.{name}")
    if ours is None and theirs is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    if not names:
        return _Merged(name.partition(".")[0], private)
    if ours is None:
        for n in wanted:
            _attribute(f"{private}.{name}", n)  # imports a submodule
        return theirs
    return ours if theirs is None else _Merged(name, private)


def _module(name: str) -> ModuleType | None:
    """Return a module; None if there is none of this name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise


def _attribute(module: str, name: str) -> object:
    """Return a name or submodule of a module; `_NONE` if it has neither."""
    package = _module(module)
    if package is None:
        return _NONE
    if (value := getattr(package, name, _NONE)) is not _NONE:
        return value
    if not hasattr(package, "__path__") or name.startswith("__"):
        return _NONE
    return _NONE if _module(f"{module}.{name}") is None else sys.modules[f"{module}.{name}"]
