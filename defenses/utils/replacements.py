"""Functions and classes of libraries that the code of plug-ins replaces, which changes all code of the process."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any, NamedTuple

from defenses.utils.errors import UserError

# Modules, and packages with all that is in them, as far as they are imported.
_MODULES = frozenset(
    [
        *("torch", "torch.functional", "torch.linalg", "torch.fft", "torch.special", "torch._tensor"),
        *("numpy", "numpy.random", "numpy.linalg", "builtins", "math", "random"),
    ]
)
_PACKAGES = (
    *("torch.nn", "torch.autograd", "torchvision.models", "torchvision.ops", "torchvision.transforms", "timm"),
    *("foolbox", "torchattacks", "autoattack", "robustbench", "bench", "defenses"),
)
_INSIDE = tuple(f"{package}." for package in _PACKAGES)
_HOOKS = "torch.nn.modules.module"  # its dicts hold the hooks of all networks
_REGISTRIES = {"timm.models._registry": "_model_entrypoints"}
_UNWATCHED = {"torch.load"}  # replaced by much code, which changes no answers
_VALUES = (bool, int, float, complex, str, tuple)
_LISTED = 3  # names in a message
_MISSING = object()


class Owner(NamedTuple):
    """The code that has replaced something.

    Args:
        where: its file or module.
        made: what it has made meanwhile, with all parameters; "": it was imported or called.
    """

    where: str
    made: str = ""


_seen: dict[str, dict[str, object]] = {}  # names of modules, classes and registries, when they were last looked at
_looked = {"modules": 0}  # that were imported when `_seen` was made
_running: list[Owner] = []
_replaced: dict[Owner, list[str]] = {}


@contextmanager
def noting_replacements(name: str, made: str = "") -> Iterator[None]:
    """Take note of what code replaces meanwhile, and restore torch's settings after it.

    Args:
        name: of the code, as "file.py:Class".
        made: see `Owner`.
    """
    from defenses.utils.isolation import kept_settings  # imports torch

    _look()  # what was replaced before is the outer code's
    outermost = not _running
    _running.append(Owner(where_of(name), made))
    try:
        with kept_settings() if outermost else nullcontext():
            yield
    finally:
        _look()
        _running.pop()


@contextmanager
def making(
    name: str, plugins: Collection[str], params: Mapping[str, object], training_seed: int | None
) -> Iterator[None]:
    """Take note of what the making of a defense replaces, unless it is part of another.

    Args:
        name: of the defense.
        plugins: names of the user's code in it.
        params: its parameters.
        training_seed: of the defense.

    Raises:
        UserError: other code has replaced something in this process.
    """
    if _running:
        yield
        return
    refuse_replaced(plugins, made := made_of(name, params, training_seed))
    with noting_replacements(next(iter(plugins)), made) if plugins else nullcontext():
        yield


def made_of(name: str, params: Mapping[str, Any], training_seed: int | None) -> str:
    """Return what the making of a defense counts as; others of its class may replace something else."""
    return f"{name} {sorted(params.items())} {training_seed}"


def see_libraries() -> None:
    """Look at libraries that were imported since the last look, before the code that imports them changes them."""
    if _running and len(sys.modules) != _looked["modules"]:
        _seen.update({name: values for name, values in _names().items() if name not in _seen})
        _looked["modules"] = len(sys.modules)


def refuse_replaced(names: Collection[str], made: str | None = "") -> None:
    """Refuse to go on with code while that of others has replaced something.

    Args:
        names: of the user's code that goes on, as "file.py:Class".
        made: see `Owner`; None: anything that its files make.

    Raises:
        UserError: something is replaced.
    """
    files = {where_of(name) for name in names}
    for owner, replaced in _replaced.items():
        if owner.where not in files or (made not in (None, owner.made) and owner.made):
            raise UserError(
                f"{_file(owner)} replaces {_listed(replaced)} for all code of the process, so it is judged alone: on a "
                "board, and in a process, without other defenses; or let it put back what it replaces"
            )


def replacement_notes() -> list[str]:
    """Return a note on each plug-in that has replaced something."""
    return [
        f"{_file(owner)} replaces {_listed(names)}, for attacks and verdicts too" for owner, names in _replaced.items()
    ]


def where_of(name: str) -> str:
    """Return the file or module of a name."""
    where = name.rpartition(":")[0]
    return os.path.abspath(os.path.expanduser(where)) if where.endswith(".py") else where or name


def _file(owner: Owner) -> str:
    """Return the file of an owner, with its folder, or its module, for messages."""
    return "/".join(owner.where.replace("\\", "/").split("/")[-2:])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _look() -> None:
    """Record what the innermost code that runs has replaced, and look at the present names."""
    present = _names()
    if _running and (found := _differences(present)):
        known = _replaced.setdefault(_running[-1], [])
        known += [name for name in found if name not in known]
    _seen.clear()
    _seen.update(present)
    _looked["modules"] = len(sys.modules)


def _names() -> dict[str, dict[str, object]]:
    """Return the names of watched modules, of their classes and of registries."""
    found: dict[str, dict[str, object]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated classes
        for name, module in list(sys.modules.items()):
            watched = name in _MODULES or name.startswith(_INSIDE) or name in _PACKAGES
            if type(module) is not ModuleType or not watched:
                continue
            found[name] = values = dict(vars(module))
            for value in values.values():
                if isinstance(value, type) and value.__module__ == name:
                    found[f"{name}.{value.__qualname__}"] = dict(vars(value))
            hooks = [k for k, v in values.items() if name == _HOOKS and k.startswith("_global") and isinstance(v, dict)]
            for key in (*hooks, *([_REGISTRIES[name]] if name in _REGISTRIES else [])):
                found[f"{name}.{key}"] = dict(values[key])
    return found


def _differences(present: dict[str, dict[str, object]]) -> list[str]:
    """Return the names whose values are no longer those that were seen."""
    found = []
    for place, before in _seen.items():
        after = present.get(place, before)
        changed = [k for k, v in before.items() if after.get(k, _MISSING) is not v and _counts(k, v, after.get(k))]
        if place.startswith(f"{_HOOKS}._global"):
            changed += [str(key) for key in after.keys() - before.keys()]
        found += [re.sub(r"^torch\.nn\.modules\.\w+\.", "torch.nn.", f"{place}.{key}") for key in changed]
    return [name for name in dict.fromkeys(found) if name not in _UNWATCHED]


def _counts(name: str, before: object, after: object) -> bool:
    """Return True if a change is that of a function, class or constant, and not one that purebench or torch makes."""
    maker = getattr(after, "__globals__", {}).get("__name__", "")
    wrapped = getattr(after, "_torchdynamo_orig_callable", getattr(after, "__wrapped__", None))
    if maker.startswith(("defenses.utils.", "torch._dynamo.")) or (maker.startswith("torch.") and wrapped is before):
        return False
    if callable(before):
        return True
    return isinstance(before, _VALUES) and not name.startswith("_") and before != after
