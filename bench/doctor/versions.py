"""Checks of versions: requirements of the distributions, and pins of the project."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.doctor.environment import Environment, normalised
from bench.doctor.finding import Diagnosis
from bench.doctor.remedy import install, installer, reinstall_pair

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# as [tool.uv] override-dependencies of pyproject.toml
OVERRIDES = ("requests>=2.32", "timm>=1.0.9", "gdown>=5.1.0")
OLDEST_PYTHON = (3, 11)
_AFFECTED = ("robustbench", "torchattacks")  # they import torchvision
_ROOTS = ("purebench", "torch", "torchvision", "robustbench", "torchattacks", "foolbox", "pyautoattack")


def python(env: Environment) -> Iterator[Diagnosis]:
    """Check that the interpreter is new enough."""
    version = ".".join(map(str, env.python))
    if env.python[:2] < OLDEST_PYTHON:
        remedy = {
            "pip install": "python3.12 -m venv .venv, and install purebench there",
            "uv pip install": "uv venv --python 3.12, and install purebench there",
        }.get(installer(env), "uv sync --python 3.12")
        yield Diagnosis("python", "broken", f"Python {version}", "purebench needs Python 3.11 or newer", remedy)
    else:
        yield Diagnosis("python", "ok", f"Python {version}")


def requirements(env: Environment) -> Iterator[Diagnosis]:
    """Check that all requirements are installed, in a version that the requirement or the project accepts."""
    accepted = {normalised(r.name): r for r in map(_requirement, OVERRIDES)}
    problems, overridden, visited = 0, [], set()
    waiting = [name for name in _ROOTS if name in env.distributions]
    while waiting:
        name = waiting.pop()
        if name in visited:
            continue
        visited.add(name)
        for demand in _demands(env, name):
            wanted = normalised(demand.name)
            installed = env.distributions.get(wanted)
            if installed is None:
                problems += 1
                yield _missing(env, name, demand)
                continue
            waiting.append(wanted)
            if demand.specifier.contains(installed.version, prereleases=True) or wanted == "torch":
                continue  # torch: see `torch_pair`
            if wanted in accepted and accepted[wanted].specifier.contains(installed.version, prereleases=True):
                overridden.append(f"{name} asks for {demand}")
                continue
            problems += 1
            yield _conflict(env, name, demand, installed.version, accepted.get(wanted))
    if not problems:
        more = f"; overridden on purpose: {', '.join(sorted(overridden))}" if overridden else ""
        yield Diagnosis("requirements", "ok", f"{len(visited)} distributions have what they ask for{more}")


def _demands(env: Environment, name: str) -> Iterator[Requirement]:
    """Yield the requirements of a distribution, without extras."""
    for text in env.distributions[name].requires or ():
        demand = _requirement(text)
        if demand.marker is None or demand.marker.evaluate({"extra": ""}):
            yield demand


def _requirement(text: str) -> Requirement:
    """Parse a requirement."""
    from packaging.requirements import Requirement

    return Requirement(text)


def _missing(env: Environment, name: str, demand: Requirement) -> Diagnosis:
    """Return the finding of a requirement that is not installed."""
    library = name if name in ("robustbench", "torchattacks", "foolbox", "autoattack") else ""
    wanted = f"{demand.name}{demand.specifier}" if installer(env) else demand.name
    remedy = install(env, wanted, checkout="uv sync" if name == "purebench" else "")
    breaks = f"the parts of {name} that use it"
    return Diagnosis(
        "requirements", "broken", f"{name} asks for {demand}, which is missing", breaks, remedy, (library,)
    )


def _conflict(
    env: Environment, name: str, demand: Requirement, version: str, override: Requirement | None
) -> Diagnosis:
    """Return the finding of a version that a requirement excludes; purebench's own requirement has precedence."""
    ours = _demands(env, "purebench") if "purebench" in env.distributions else ()
    asked = override or next((r for r in ours if normalised(r.name) == normalised(demand.name)), demand)
    wanted = f"{asked.name}{asked.specifier}"
    if name == "purebench" or installer(env):
        remedy = install(env, wanted, checkout="uv sync")
    elif wanted in env.settings.get("tool", {}).get("uv", {}).get("override-dependencies", []):
        remedy = f'uv sync: "{wanted}" stands in [tool.uv] override-dependencies of pyproject.toml already'
    else:
        remedy = f'in pyproject.toml: add "{wanted}" to [tool.uv] override-dependencies; then uv sync'
    status = f"{name} asks for {demand}; {demand.name} {version} is installed"
    return Diagnosis("requirements", "warn", status, f"{name} was not made for it", remedy)


def torch_pair(env: Environment) -> Iterator[Diagnosis]:
    """Check that torchvision fits torch: its compiled operators need the version of its metadata."""
    vision, torch = env.distribution("torchvision"), env.version("torch")
    if vision is None or torch is None:
        evidence = f"torch {torch or 'is missing'}, torchvision {vision.version if vision else 'is missing'}"
        remedy = install(env, "torchvision", checkout="uv sync")
        yield Diagnosis("torch-torchvision", "broken", evidence, "RobustBench and torchattacks", remedy, _AFFECTED)
        return
    demanded = [r.specifier for r in map(_requirement, vision.requires or ()) if normalised(r.name) == "torch"]
    remedy = "take both from one index and let the installer choose the pair: "
    remedy += reinstall_pair(env, "torch", "torchvision")
    evidence = f"torch {torch}, torchvision {vision.version}"
    for wanted in demanded:
        if not wanted.contains(torch.partition("+")[0], prereleases=True):
            breaks = (
                f"torchvision {vision.version} is built for torch {str(wanted).removeprefix('==')}: importing it fails"
            )
            yield Diagnosis("torch-torchvision", "broken", evidence, breaks, remedy, _AFFECTED)
            return
    builds = [v.partition("+")[2] for v in (torch, vision.version)]
    if builds == [
        "cpu",
        "",
    ]:  # the registry's torchvision for Linux is built for CUDA; its metadata is silent
        builds[1] = _built_for(env.module("torchvision"))
    if builds[1] and builds[0] != builds[1]:
        breaks = "torchvision's operators (torchvision::nms) are missing: importing it fails"
        if not builds[0]:  # torch of the package index has no such tag
            breaks = "torchvision's operators may be built for another CUDA than torch"
        yield Diagnosis("torch-torchvision", "broken" if all(builds) else "warn", evidence, breaks, remedy, _AFFECTED)
        return
    yield Diagnosis("torch-torchvision", "ok", f"{evidence} fit each other")


def _built_for(folder: Path | None) -> str:
    """Return the tag of torchvision's own version, as "cu132"; "" if it has none."""
    file = folder / "version.py" if folder else None
    text = file.read_text(encoding="utf-8") if file and file.is_file() else ""
    tag = re.search(r"^__version__ = ['\"][^'\"+]+\+(\w+)", text, re.MULTILINE)
    return tag[1] if tag else ""
