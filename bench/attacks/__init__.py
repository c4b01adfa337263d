"""Attacks by name: of libraries, of purebench, of installed suites, of user functions and of files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.attacks.base import Attack, Unsupported
    from bench.attacks.registry import attack_names, find_attack

__all__ = ["Attack", "Unsupported", "attack_names", "find_attack"]

_MODULES = {"Attack": "base", "Unsupported": "base", "attack_names": "registry", "find_attack": "registry"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__]
