"""Find attacks by name: of libraries, of purebench, of installed suites, user-defined functions, files.

Names and arguments are read from source files; torch and the libraries are imported when an attack runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bench.attacks import null, plugins, precomputed, purebench_suite, user_function
from bench.attacks.base import Attack, Unsupported, library_version
from bench.attacks.libraries import autoattack, foolbox, torchattacks
from defenses.utils.errors import UserError, unknown, with_context
from defenses.utils.introspection import Parameters
from defenses.utils.json_values import JsonView
from defenses.utils.parameters import canonical, decode

__all__ = ["Attack", "Unsupported", "attack_names", "find_attack", "library_version"]


class _Suite(Protocol):
    """The functions of a suite's module."""

    def names(self) -> list[str]: ...

    def find(self, local: str, params: dict[str, object]) -> Attack: ...

    def parameters(self, local: str) -> Parameters: ...


_SUITES: dict[str, _Suite] = {
    "autoattack": autoattack,
    "foolbox": foolbox,
    "torchattacks": torchattacks,
    "given": precomputed,
    "bench": purebench_suite,
}
_OTHER_NAMES = {"bench.screened:bpda_eot": f"bench:{purebench_suite.BPDA_EOT}"}  # in boards of earlier versions


def attack_names(warn: Callable[[str], None] = lambda _: None) -> list[str]:
    """Return every attack that can be named in a board, except user-defined functions and files.

    Args:
        warn: called with one line for every installed suite that cannot be used.
    """
    names = null.names() + [f"{name}:{local}" for name, module in _SUITES.items() for local in module.names()]
    for name, suite in plugins.suites(_SUITES).items():
        try:
            names += [f"{name}:{local}" for local in suite.names()]
        except UserError as problem:
            warn(str(problem))
    return names


def find_attack(name: str, params: JsonView | None = None) -> Attack:
    """Return the attack of a name.

    Args:
        name: "none", "uniform", "suite:attack" ("autoattack:apgd-ce", "foolbox:LinfPGD", "torchattacks:EOTPGD", or
            of an installed suite, see `bench.attacks.plugins`), "given:path" (precomputed images), or a user-defined
            function, "package.module:function" or "path/file.py:function".
        params: arguments of the board; `run` takes them again.

    Raises:
        UserError: the name or the name of a parameter is unknown (nearest names given), or a value is out of range.
    """
    name = _OTHER_NAMES.get(name, name)
    try:
        arguments = decode(canonical(dict(params or {})))  # numbers may come as text
    except UserError as error:
        raise with_context(name, error) from None
    if name in null.names():
        return null.find(name, arguments)
    if name.lower().replace("-", "").replace("_", "") in ("autoattack", "aa"):
        raise UserError(
            f'unknown attack "{name}"; did you mean autoattack:standard, or autoattack:rand for a random model?'
        )
    suite, colon, local = name.partition(":")
    if suite in _SUITES:
        return _SUITES[suite].find(local, arguments)
    if colon and (installed := plugins.suites(_SUITES).get(suite)):
        return installed.find(local, arguments)
    if colon and (attack := user_function.find(name, arguments)):
        return attack
    raise unknown("attack", name, attack_names())


def attack_parameters(name: str) -> Parameters | None:
    """Return the parameters of an attack with their defaults, without importing its library.

    Args:
        name: of an attack that `find_attack` finds.

    Returns:
        None for an attack of an installed suite, which tells no parameters.
    """
    name = _OTHER_NAMES.get(name, name)
    suite, colon, local = name.partition(":")
    if not colon:
        return null.parameters(name)
    if suite in _SUITES:
        return _SUITES[suite].parameters(local)
    return None if suite in plugins.suites(_SUITES) else user_function.parameters(name)


def user_code(name: str) -> str:
    """Return the "module:function" of a user's attack or installed suite; "" of purebench's own and its libraries'.

    Args:
        name: as in `find_attack`.
    """
    suite, colon, _ = name.partition(":")
    if not colon or suite in _SUITES or name in _OTHER_NAMES:
        return ""
    installed = plugins.suites(_SUITES).get(suite)
    return name if installed is None else f"{installed.module}:find"
