"""Finds what is wrong with the installed libraries, which it does not import: what that breaks, and how to mend it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from bench.doctor import files, hardware, modules, versions
from bench.doctor.environment import Environment
from bench.doctor.finding import Diagnosis
from defenses.utils.errors import UserError

__all__ = ["Diagnosis", "Environment", "examine", "require"]

Check = Callable[[Environment], Iterator[Diagnosis]]

CHECKS: tuple[Check, ...] = (
    versions.python,
    files.complete,
    files.stray,
    files.tests_package,
    modules.autoattack,
    modules.pkg_resources,
    modules.removed_names,
    modules.optional,
    versions.requirements,
    versions.torch_pair,
    versions.drift,
    hardware.accelerator,
)
# What has to be right before a library is used.
_NEEDED: dict[str, tuple[Check, ...]] = {
    "autoattack": (files.complete, modules.autoattack),
    "foolbox": (files.complete,),
    "torchattacks": (files.complete, versions.torch_pair),
    "robustbench": (files.complete, modules.autoattack, modules.pkg_resources, versions.torch_pair),
}


def examine(environment: Environment) -> list[Diagnosis]:
    """All findings, in the order of the checks.

    Args:
        environment: what to look at, as `Environment.here()`.
    """
    return [finding for check in CHECKS for finding in check(environment)]


def require(library: str) -> None:
    """Refuse a library that is broken; the fast checks alone, once a process.

    Args:
        library: "autoattack", "foolbox", "torchattacks" or "robustbench"; any other name is not looked at.

    Raises:
        UserError: it is broken, with what to do.
    """
    for finding in _broken(library):
        raise UserError(f"{finding.breaks} ({finding.evidence}); {finding.remedy}")


@functools.cache
def _broken(library: str) -> tuple[Diagnosis, ...]:
    if library not in _NEEDED:
        return ()
    environment = Environment.here()
    found = (f for check in _NEEDED[library] for f in check(environment.only(library)))
    return tuple(f for f in found if f.status == "broken" and library in f.concerns)
