"""Global values that the code of a function reads."""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator, Mapping

from defenses.utils.plugin_code import is_users

_BETWEEN = ("CACHE", "PRECALL", "PUSH_NULL")  # instructions between a name and its attribute
_MISSING = object()


def globals_read(function: types.FunctionType) -> dict[str, object]:
    """Return the values of the global names that a function reads and no function sets, in alphabetical order.

    A user's module counts by the attributes that are read: `config.scale`. Names that have no value yet, and modules
    that the function imports by itself, are left out.
    """
    scope = function.__globals__
    found: dict[str, object] = {}
    for code in _codes(function.__code__):
        found.update(_reads(code, scope))
    return dict(sorted(found.items()))


def functions_of(cls: type) -> list[types.FunctionType]:
    """Return the functions of a class itself: methods, static and class methods, and those of properties."""
    found = []
    for member in vars(cls).values():
        wrapped = getattr(member, "__func__", member)
        inner = [member.__wrapped__] if hasattr(member, "__wrapped__") else []  # of functools.wraps, torch.no_grad
        parts = [member.fget, member.fset] if isinstance(member, property) else [wrapped, *inner]
        found += [part for part in parts if isinstance(part, types.FunctionType)]
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code of a function and of all functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _reads(code: types.CodeType, scope: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield (dotted name, value) of the global values that code reads."""
    instructions = [i for i in dis.get_instructions(code) if i.opname not in _BETWEEN]
    set_here = {i.argval for i in instructions if i.opname == "STORE_GLOBAL"}
    path, value = "", _MISSING
    for i in instructions:
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME") and i.argval not in set_here:
            path, value = i.argval, scope.get(i.argval, _MISSING)
        elif i.opname in ("LOAD_ATTR", "LOAD_METHOD") and _is_users_module(value):
            path, value = f"{path}.{i.argval}", vars(value).get(i.argval, _MISSING)
        else:
            value = _MISSING
        if value is not _MISSING and not _is_users_module(value):
            yield path, value


def _is_users_module(value: object) -> bool:
    return isinstance(value, types.ModuleType) and is_users(value.__name__)
