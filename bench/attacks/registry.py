"""Attacks by name: thin adapters around AutoAttack, Foolbox and torchattacks, installed suites, a user's functions.

Nothing here imports torch or a library until an attack runs: names and arguments are read from source files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bench.attacks import null, plugins, precomputed, user_function
from bench.attacks.adaptive import suite as adaptive
from bench.attacks.base import Attack, Unsupported, library_version
from bench.attacks.libraries import autoattack, foolbox, torchattacks
from defenses.utils.errors import UserError, unknown

__all__ = ["Attack", "Unsupported", "attack_names", "find_attack", "library_version"]


class _Suite(Protocol):
    """What an adapter's module offers."""

    def names(self) -> list[str]: ...

    def find(self, local: str, params: dict[str, Any]) -> Attack: ...


_SUITES: dict[str, _Suite] = {
    "autoattack": autoattack,
    "foolbox": foolbox,
    "torchattacks": torchattacks,
    "given": precomputed,
    "bench": adaptive,
}


def attack_names(warn: Callable[[str], None] = lambda _: None) -> list[str]:
    """Every attack that can be named in a board, a user's own functions apart.

    Args:
        warn: is told, in one line, of every installed suite that cannot be used.
    """
    found = null.names() + [f"{name}:{local}" for name, module in _SUITES.items() for local in module.names()]
    for name, suite in plugins.suites(_SUITES).items():
        try:
            found += [f"{name}:{local}" for local in suite.names()]
        except UserError as problem:
            warn(str(problem))
    return found


def find_attack(name: str, params: Mapping[str, Any] | None = None) -> Attack:
    """The attack of a name.

    Args:
        name: "none", "uniform", "suite:attack" ("autoattack:apgd-ce", "foolbox:LinfPGD", "torchattacks:EOTPGD", or
            of a suite that is installed, see `bench.attacks.plugins`), "given:path" (images that somebody else
            made), or a function of the user's own, "package.module:function" or "path/file.py:function".
        params: the arguments that the board gives; `run` takes them again.

    Raises:
        UserError: the name or the name of a parameter is unknown (nearest names given), or a value is no good.
    """
    arguments = dict(params or {})
    if name in null.names():
        return null.find(name, arguments)
    suite, colon, local = name.partition(":")
    if suite in _SUITES:
        return _SUITES[suite].find(local, arguments)
    if colon and (other := plugins.suites(_SUITES).get(suite)):
        return other.find(local, arguments)
    if colon and (found := user_function.find(name, arguments)):
        return found
    raise unknown("attack", name, attack_names())
