"""Suites of other distributions: modules like `libraries.foolbox`, found by the entry points `purebench.suites`.

A distribution says in its pyproject.toml

    [project.entry-points."purebench.suites"]
    mine = "my_package.suite"

and `mine:name` is an attack then. The module has `names() -> list[str]`, which imports nothing heavy, and
`find(local, params) -> Attack`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from bench.attacks.base import Attack
from defenses.utils.errors import UserError
from defenses.utils.plugins import forbid_exit, line_of

GROUP = "purebench.suites"


@dataclass(frozen=True)
class Suite:
    """A suite of another distribution.

    Args:
        name: what stands before the colon.
        module: that has `names` and `find`.
        distribution: its name and version.
        problem: why it cannot be used; "": it can, as far as is known without importing it.
    """

    name: str
    module: str
    distribution: str
    problem: str = ""

    def names(self) -> list[str]:
        """The local names of its attacks.

        Raises:
            UserError: the suite cannot be used.
        """
        try:
            found = list(self._loaded().names())
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise self._broken(f"names() failed: {line_of(error)}") from error
        if not all(isinstance(name, str) for name in found):
            raise self._broken("names() must give a list of texts")
        return sorted(found)

    def find(self, local: str, params: dict[str, Any]) -> Attack:
        """See `registry.find_attack`. To the attack's version come the distribution's and a hash of the code.

        Raises:
            UserError: the suite cannot be used, or refuses the name or a parameter.
        """
        from defenses.utils.plugins import code_hash

        try:
            attack = self._loaded().find(local, params)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise self._broken(f'find("{local}") failed: {line_of(error)}') from error
        if not isinstance(attack, Attack):
            raise self._broken(f'find("{local}") gave {type(attack).__name__}; it must give a bench.attacks.Attack')
        code = code_hash(f"{self.module}:find")[:16]
        return dataclasses.replace(attack, version=f"{attack.version}, {self.distribution} {code}".rstrip())

    def _loaded(self) -> ModuleType:
        if self.problem:
            raise UserError(self.problem)
        try:
            with forbid_exit():
                module = importlib.import_module(self.module)
        except (Exception, SystemExit) as error:
            raise self._broken(f"cannot be imported: {line_of(error)}") from error
        for needed in ("names", "find"):
            if not callable(getattr(module, needed, None)):
                raise self._broken(f"{self.module} has no function {needed}")
        return module

    def _broken(self, what: str) -> UserError:
        return UserError(f'the suite "{self.name}" of {self.distribution}: {what}')


def suites(taken: Iterable[str]) -> dict[str, Suite]:
    """The suites of all installed distributions by name; nothing of them is imported.

    Args:
        taken: names that are purebench's own.
    """
    found: dict[str, Suite] = {}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        of = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
        suite = Suite(entry.name, entry.value.strip(), of, _refused(entry, of, taken))
        known = found.get(entry.name)
        if known is not None and (known.module, known.distribution) != (suite.module, suite.distribution):
            both = f"{known.distribution} and {of}"
            suite = dataclasses.replace(suite, problem=f'{both} both have a suite "{entry.name}"; uninstall one')
        found[entry.name] = suite
    return found


def _refused(entry: importlib.metadata.EntryPoint, of: str, taken: Iterable[str]) -> str:
    if entry.name in taken:
        return f'the suite "{entry.name}" of {of} has the name of one of purebench\'s own, which stays; rename it'
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", entry.name):
        return f'the suite "{entry.name}" of {of}: a name is made of letters, digits, - and _'
    if not re.fullmatch(r"\w+(\.\w+)*", entry.value.strip()):
        return f'the suite "{entry.name}" of {of}: "{entry.value}" is no module; write my_package.suite'
    return ""
