"""Check the modules that libraries import: they exist, and are the expected ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench.doctor.environment import Environment
from bench.doctor.finding import Diagnosis

_FRA31 = {  # arguments of fra31's methods that robustbench uses
    "__init__": {"version", "attacks_to_run", "log_path", "device"},
    "run_standard_evaluation": {"bs", "state_path"},
}
_SETUPTOOLS = ">=77.0.3,<82"


def autoattack(env: Environment) -> Iterator[Diagnosis]:
    """Yield what is wrong with the module `autoattack`, which RobustBench imports and calls by fra31's signature."""
    installed, real, engine = env.module("autoattack"), env.version("autoattack"), env.version("pyautoattack")
    package = env.module("defenses")
    place = installed or (package / "utils" / "autoattack" if package else None)
    remedy = "install purebench anew" if env.installer else env.reinstall("purebench")
    concerns: tuple[str, ...] = ("robustbench",)
    if real is None and engine is None:
        evidence, breaks = "neither autoattack nor pyautoattack is installed", "AutoAttack and RobustBench cannot run"
        remedy, concerns = env.install("pyautoattack>=0.2.0"), ("autoattack", "robustbench")
    elif place is None or not place.exists():
        evidence = f"pyautoattack {engine} is installed, and no module autoattack"
        breaks = "robustbench.eval cannot be imported: it imports the module autoattack"
    elif lacking := _lacking(place):
        evidence = f"{place} has no {lacking}"
        breaks = "robustbench.eval.benchmark fails: it calls the module autoattack as fra31 wrote it"
        remedy = f"rename or remove {place}: purebench provides the module" if installed else remedy
    else:
        which = installed or "that of purebench"
        who = f"fra31's autoattack {real}" if real else f"{which}, over pyautoattack {engine}"
        yield Diagnosis("autoattack-module", "ok", f"the module autoattack is {who}")
        return
    yield Diagnosis("autoattack-module", "broken", evidence, breaks, remedy, concerns)


def _lacking(place: Path) -> str:
    """Return what a module autoattack lacks of fra31's interface; "" if nothing."""
    nodes: list[ast.AST] = []
    for file in [place] if place.is_file() else [place / "autoattack.py", place / "__init__.py"]:
        with suppress(OSError, SyntaxError, ValueError):
            nodes += ast.walk(ast.parse(file.read_bytes()))
    found = next((n for n in nodes if isinstance(n, ast.ClassDef) and n.name == "AutoAttack"), None)
    if found is None:
        return "class AutoAttack"
    parameters = {m.name: {a.arg for a in m.args.args} for m in found.body if isinstance(m, ast.FunctionDef)}
    for name, needed in _FRA31.items():
        if missing := needed - parameters.get(name, set()):
            return f"AutoAttack.{name} with {', '.join(sorted(missing))}"
    return "" if (place / "state.py").is_file() else "module autoattack.state"


def pkg_resources(env: Environment) -> Iterator[Diagnosis]:
    """Check that pkg_resources is installed, which robustbench imports and setuptools 82 removed."""
    from packaging.specifiers import SpecifierSet

    version = env.version("setuptools")
    evidence = f"setuptools {version}" if version else "no setuptools"
    remedy = env.install(f"setuptools{_SETUPTOOLS}")
    if env.module("pkg_resources") is None:
        breaks = "robustbench.data cannot be imported: its loaders import pkg_resources"
        yield Diagnosis("pkg-resources", "broken", f"{evidence} and no pkg_resources", breaks, remedy, ("robustbench",))
    elif version and version not in SpecifierSet(_SETUPTOOLS):
        breaks = "the next version of setuptools may come without pkg_resources"
        yield Diagnosis("pkg-resources", "warn", f"{evidence}, out of {_SETUPTOOLS}", breaks, remedy)
    else:
        yield Diagnosis("pkg-resources", "ok", f"{evidence} has pkg_resources")


def optional(env: Environment) -> Iterator[Diagnosis]:
    """Check packages that only some attacks or data sets need."""
    if env.module("numba") is None:
        evidence, breaks = "numba is not installed", "Foolbox's Brendel-Bethge attacks end in an error"
        yield Diagnosis("numba", "warn", evidence, breaks, env.install("numba>=0.60"))
    else:
        yield Diagnosis("numba", "ok", f"numba {env.version('numba')} for Foolbox's Brendel-Bethge attacks")
    evidence = f"datasets {env.version('datasets')} for data sets of the Hugging Face hub"
    if env.module("datasets") is None:
        extra = env.install("datasets>=4") if env.installer else "uv sync --extra hf"
        evidence = f"datasets is not installed: data sets of the Hugging Face hub need the extra, {extra}"
    yield Diagnosis("hub-datasets", "ok", evidence)
