"""Attacks by name: thin adapters around AutoAttack, Foolbox and torchattacks, and a user's own functions.

Nothing here imports torch or a library until an attack runs: names and arguments are read from source files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from bench.suites import autoattack, builtin, foolbox, own, torchattacks
from bench.suites.attack import Attack, Unsupported, library_version
from defenses.errors import unknown

__all__ = ["Attack", "Unsupported", "attack_names", "find_attack", "library_version"]


class _Suite(Protocol):
    """What an adapter's module offers."""

    def names(self) -> list[str]: ...

    def find(self, local: str, params: dict[str, Any]) -> Attack: ...


_SUITES: dict[str, _Suite] = {"autoattack": autoattack, "foolbox": foolbox, "torchattacks": torchattacks}


def attack_names() -> list[str]:
    """Every attack that can be named in a board, a user's own functions apart."""
    return [*builtin.names(), *(f"{suite}:{name}" for suite, module in _SUITES.items() for name in module.names())]


def find_attack(name: str, params: Mapping[str, Any] | None = None) -> Attack:
    """The attack of a name.

    Args:
        name: "none", "uniform", "suite:attack" ("autoattack:apgd-ce", "foolbox:LinfPGD", "torchattacks:EOTPGD"),
            or a function of the user's own, "package.module:function" or "path/file.py:function".
        params: the arguments that the board gives; `run` takes them again.

    Raises:
        UserError: the name or the name of a parameter is unknown (nearest names given), or a value is no good.
    """
    given = dict(params or {})
    if name in builtin.names():
        return builtin.find(name, given)
    suite, colon, local = name.partition(":")
    if suite in _SUITES:
        return _SUITES[suite].find(local, given)
    if colon and (found := own.find(name, given)):
        return found
    raise unknown("attack", name, attack_names())
