"""Check versions: of Python, of what distributions require, and of torch and torchvision together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.doctor.environment import Environment
from bench.doctor.finding import Diagnosis

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
    if env.python[:2] >= OLDEST_PYTHON:
        yield Diagnosis("python", "ok", f"Python {version}")
        return
    new = "python3.12 -m venv .venv" if env.installer == "pip install" else "uv venv --python 3.12"
    remedy = f"{new}, and install purebench there" if env.installer else "uv sync --python 3.12"
    yield Diagnosis("python", "broken", f"Python {version}", "purebench needs Python 3.11 or newer", remedy)


def requirements(env: Environment) -> Iterator[Diagnosis]:
    """Check that all requirements are installed, in a version that the requirement or the project accepts."""
    from packaging.utils import canonicalize_name

    ours = {canonicalize_name(r.name): r for r in (*_demands(env, "purebench"), *map(_requirement, OVERRIDES))}
    problems, overridden = 0, list[str]()
    waiting: list[str] = [name for name in _ROOTS if env.distribution(name)]
    visited = set(waiting)
    while waiting:
        name = waiting.pop()
        for demand in _demands(env, name):
            wanted, version = canonicalize_name(demand.name), env.version(demand.name)
            if version is not None and wanted not in visited:
                visited.add(wanted)
                waiting.append(wanted)
            if version is not None and (wanted == "torch" or demand.specifier.contains(version, prereleases=True)):
                continue  # torch: see `torch_pair`
            accepted = ours.get(wanted, demand)
            if version is not None and str(accepted) in OVERRIDES and accepted.specifier.contains(version):
                overridden.append(f"{name} asks for {demand}")
                continue
            problems += 1
            yield _unmet(env, name, demand, version, f"{accepted.name}{accepted.specifier}")
    if not problems:
        more = f"; overridden on purpose: {', '.join(sorted(overridden))}" if overridden else ""
        yield Diagnosis("requirements", "ok", f"{len(visited)} distributions have what they ask for{more}")


def _demands(env: Environment, name: str) -> Iterator[Requirement]:
    """Yield the requirements of a distribution, without extras."""
    distribution = env.distribution(name)
    for demand in map(_requirement, (distribution.requires or ()) if distribution else ()):
        if demand.marker is None or demand.marker.evaluate({"extra": ""}):
            yield demand


def _requirement(text: str) -> Requirement:
    """Parse a requirement."""
    from packaging.requirements import Requirement

    return Requirement(text)


def _unmet(env: Environment, name: str, demand: Requirement, version: str | None, accepted: str) -> Diagnosis:
    """Return the finding of a requirement that is not installed, or in a version that it excludes."""
    if version is None:
        concerns = (name,) if name in ("robustbench", "torchattacks", "foolbox", "autoattack") else ()
        evidence, breaks = f"{name} asks for {demand}, which is missing", f"the parts of {name} that use it"
        return Diagnosis("requirements", "broken", evidence, breaks, env.install(accepted), concerns)
    remedy = env.install(accepted)
    if not env.installer and name != "purebench":
        remedy += f'; if that changes nothing, "{accepted}" in [tool.uv] override-dependencies of pyproject.toml'
    evidence = f"{name} asks for {demand}; {demand.name} {version} is installed"
    return Diagnosis("requirements", "warn", evidence, f"{name} was not made for it", remedy)


def torch_pair(env: Environment) -> Iterator[Diagnosis]:
    """Check that torchvision fits torch: its compiled operators need the version of its metadata."""
    torch, vision = env.version("torch"), env.version("torchvision")
    evidence = f"torch {torch or 'is missing'}, torchvision {vision or 'is missing'}"
    if vision is None or torch is None:
        breaks, remedy = "RobustBench and torchattacks", env.install("torchvision")
        yield Diagnosis("torch-torchvision", "broken", evidence, breaks, remedy, _AFFECTED)
        return
    release = torch.partition("+")[0]
    specifiers = [r.specifier for r in _demands(env, "torchvision") if r.name == "torch"]
    demanded = next((str(s) for s in specifiers if not s.contains(release, prereleases=True)), "")
    of_torch, of_vision = torch.partition("+")[2], vision.partition("+")[2]
    if of_torch == "cpu" and not of_vision:  # the registry's torchvision for Linux is built for CUDA, and silent on it
        of_vision = _built_for(env)
    if demanded:
        breaks = f"torchvision {vision} is built for torch {demanded.removeprefix('==')}: importing it fails"
    elif of_vision in ("", of_torch):
        yield Diagnosis("torch-torchvision", "ok", f"{evidence} fit each other")
        return
    elif of_torch:
        breaks = "torchvision's operators (torchvision::nms) are missing: importing it fails"
    else:  # torch of the package index has no such tag
        breaks = "torchvision's operators may be built for another CUDA than torch"
    remedy = "take both from one index and let the installer choose the pair: "
    remedy += env.reinstall("torch", "torchvision")
    yield Diagnosis(
        "torch-torchvision", "broken" if demanded or of_torch else "warn", evidence, breaks, remedy, _AFFECTED
    )


def _built_for(env: Environment) -> str:
    """Return the tag of torchvision's own version, as "cu132"; "" if it has none."""
    folder = env.module("torchvision")
    file = folder / "version.py" if folder else None
    text = file.read_text(encoding="utf-8") if file and file.is_file() else ""
    tag = re.search(r"^__version__ = ['\"][^'\"+]+\+(\w+)", text, re.MULTILINE)
    return tag[1] if tag else ""
