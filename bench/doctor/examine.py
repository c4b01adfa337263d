"""Check the installed libraries without importing them."""

from __future__ import annotations

import functools
from dataclasses import replace

from bench.doctor import files, hardware, modules, versions
from bench.doctor.environment import Environment
from bench.doctor.finding import Check, Diagnosis
from defenses.utils.errors import UserError

__all__ = ["Diagnosis", "Environment", "examine", "require"]

CHECKS: tuple[Check, ...] = (
    versions.python,
    files.complete,
    modules.autoattack,
    modules.pkg_resources,
    modules.optional,
    versions.requirements,
    versions.torch_pair,
    hardware.accelerator,
)
_REQUIRED: dict[str, tuple[Check, ...]] = {
    "autoattack": (files.complete, modules.autoattack),
    "foolbox": (files.complete,),
    "torchattacks": (files.complete, versions.torch_pair),
    "robustbench": (files.complete, modules.autoattack, modules.pkg_resources, versions.torch_pair),
}


def examine(environment: Environment) -> list[Diagnosis]:
    """Return all findings, in the order of the checks.

    Args:
        environment: as `Environment.here()`.
    """
    return [finding for check in CHECKS for finding in check(environment)]


def require(library: str) -> None:
    """Refuse a broken library; the fast checks run, once in a process.

    Args:
        library: "autoattack", "foolbox", "torchattacks" or "robustbench"; any other name is not checked.

    Raises:
        UserError: it is broken; the message has the remedy.
    """
    for finding in _broken(library):
        raise UserError(f"{finding.breaks} ({finding.evidence}); {finding.remedy}")


@functools.cache
def _broken(library: str) -> tuple[Diagnosis, ...]:
    """Return the findings that forbid the use of a library."""
    if library not in _REQUIRED:
        return ()
    names = ("autoattack", "pyautoattack") if library == "autoattack" else (library,)
    environment = replace(Environment.here(), libraries=names)
    findings = (f for check in _REQUIRED[library] for f in check(environment))
    return tuple(f for f in findings if f.status == "broken" and library in f.concerns)
