"""Suites of attacks in installed distributions, found by the entry points `purebench.suites`.

A distribution that declares in its pyproject.toml

    [project.entry-points."purebench.suites"]
    mine = "my_package.suite"

adds the attacks `mine:name`. The module has `names() -> list[str]`, which imports nothing heavy, and
`find(local, params) -> Attack`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

from bench.attacks.base import Attack
from defenses.utils.errors import UserError
from defenses.utils.plugins import code_hash, forbid_exit, line_of

GROUP = "purebench.suites"


@dataclass(frozen=True)
class Suite:
    """A suite of an installed distribution.

    Args:
        name: the part of an attack's name before the colon.
        module: that has `names` and `find`.
        distribution: its name and version.
        problem: reason why it cannot be used; "": none is known before it is imported.
    """

    name: str
    module: str
    distribution: str
    problem: str = ""

    def names(self) -> list[str]:
        """Return the local names of its attacks.

        Raises:
            UserError: the suite cannot be used.
        """
        try:
            names = list(self._load().names())
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise self._error(f"names() failed: {line_of(error)}") from error
        if not all(isinstance(name, str) for name in names):
            raise self._error("names() must give a list of texts")
        return sorted(names)

    def find(self, local: str, params: dict[str, object]) -> Attack:
        """Return an attack, with the distribution's version and a hash of the code added to its version.

        Args and errors as of `bench.attacks.registry.find_attack`.

        Raises:
            UserError: the suite cannot be used, or refuses the name or a parameter.
        """
        try:
            attack = self._load().find(local, params)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise self._error(f'find("{local}") failed: {line_of(error)}') from error
        if not isinstance(attack, Attack):
            raise self._error(f'find("{local}") gave {type(attack).__name__}; it must give a bench.attacks.Attack')
        code = code_hash(f"{self.module}:find")[:16]
        return dataclasses.replace(attack, version=f"{attack.version}, {self.distribution} {code}".rstrip())

    def _load(self) -> ModuleType:
        """Return the imported module; refuse one without the functions of a suite."""
        if self.problem:
            raise UserError(self.problem)
        try:
            with forbid_exit():
                module = importlib.import_module(self.module)
        except (Exception, SystemExit) as error:
            raise self._error(f"cannot be imported: {line_of(error)}") from error
        for function in ("names", "find"):
            if not callable(getattr(module, function, None)):
                raise self._error(f"{self.module} has no function {function}")
        return module

    def _error(self, problem: str) -> UserError:
        return UserError(f'the suite "{self.name}" of {self.distribution}: {problem}')


def suites(taken: Iterable[str]) -> dict[str, Suite]:
    """Return the suites of all installed distributions by name, without importing them.

    Args:
        taken: names of purebench's own suites.
    """
    by_name: dict[str, Suite] = {}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
        suite = Suite(entry.name, entry.value.strip(), distribution, _problem(entry, distribution, taken))
        other = by_name.get(entry.name)
        if other is not None and (other.module, other.distribution) != (suite.module, suite.distribution):
            both = f"{other.distribution} and {distribution}"
            suite = dataclasses.replace(suite, problem=f'{both} both have a suite "{entry.name}"; uninstall one')
        by_name[entry.name] = suite
    return by_name


def _problem(entry: importlib.metadata.EntryPoint, distribution: str, taken: Iterable[str]) -> str:
    """Return the problem of an entry point; "" if it has none."""
    suite = f'the suite "{entry.name}" of {distribution}'
    if entry.name in taken:
        return f"{suite} has the name of one of purebench's own, which stays; rename it"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", entry.name):
        return f"{suite}: a name is made of letters, digits, - and _"
    if not re.fullmatch(r"\w+(\.\w+)*", entry.value.strip()):
        return f'{suite}: "{entry.value}" is no module; write my_package.suite'
    return ""
