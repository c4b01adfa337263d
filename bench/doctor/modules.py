"""Checks of the modules that libraries import: they exist, and are the expected ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from bench.doctor.environment import Environment
from bench.doctor.finding import Diagnosis
from bench.doctor.remedy import install, installer, reinstall

_INIT = {"version", "attacks_to_run", "log_path", "device"}  # fra31's arguments that robustbench uses
_RUN = {"bs", "state_path"}
_SETUPTOOLS = ">=77.0.3,<82"


def autoattack(env: Environment) -> Iterator[Diagnosis]:
    """Yield what is wrong with the module `autoattack`, which RobustBench imports and calls by fra31's signature."""
    installed, engine = env.module("autoattack"), env.version("pyautoattack")
    place = installed or _provided(env)
    engine_remedy = install(env, "pyautoattack>=0.2.0", checkout="uv sync")
    anew = "install purebench anew" if installer(env) else reinstall(env, "purebench")
    concerns: tuple[str, ...] = ("robustbench",)
    if installed is None and engine is None:
        evidence, breaks = "neither autoattack nor pyautoattack is installed", "AutoAttack and RobustBench cannot run"
        yield Diagnosis("autoattack-module", "broken", evidence, breaks, engine_remedy, ("autoattack", *concerns))
        return
    if place is None:
        evidence = f"pyautoattack {engine} is installed, and no module autoattack"
        breaks = "robustbench.eval cannot be imported: it imports the module autoattack"
        yield Diagnosis("autoattack-module", "broken", evidence, breaks, anew, concerns)
        return
    lacking = _lacking(place)
    if lacking:
        evidence = f"{place} has no {lacking}"
        breaks = "robustbench.eval.benchmark fails: it calls the module autoattack as fra31 wrote it"
        remedy = f"rename or remove {place}: purebench provides the module" if installed else anew
        yield Diagnosis("autoattack-module", "broken", evidence, breaks, remedy, concerns)
        return
    real = env.version("autoattack")
    if real is None and engine is None:
        evidence, breaks = f"{place} without pyautoattack, which computes everything", "AutoAttack cannot run"
        yield Diagnosis("autoattack-module", "broken", evidence, breaks, engine_remedy, ("autoattack", *concerns))
        return
    who = f"fra31's autoattack {real}" if real else f"{installed or 'that of purebench'}, over pyautoattack {engine}"
    yield Diagnosis("autoattack-module", "ok", f"the module autoattack is {who}")


def _provided(env: Environment) -> Path | None:
    """Return the folder of purebench's own module `autoattack`; None if it is not there."""
    defenses = env.module("defenses")
    folder = defenses / "utils" / "autoattack" if defenses else None
    return folder if folder and folder.is_dir() else None


def _lacking(place: Path) -> str:
    """Return what a module autoattack lacks of fra31's interface; "" if nothing."""
    files = [place] if place.is_file() else [place / "autoattack.py", place / "__init__.py"]
    for tree in (_tree(f) for f in files if f.is_file()):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == "AutoAttack":
                methods = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef)}
                for name, needed in (("__init__", _INIT), ("run_standard_evaluation", _RUN)):
                    given = {a.arg for a in methods[name].args.args} if name in methods else set()
                    if needed - given:
                        return f"AutoAttack.{name} with {', '.join(sorted(needed - given))}"
                return "" if (place / "state.py").is_file() else "module autoattack.state"
    return "class AutoAttack"


def pkg_resources(env: Environment) -> Iterator[Diagnosis]:
    """Check that pkg_resources is installed, which robustbench imports and setuptools 82 removed."""
    version = env.version("setuptools")
    evidence = f"setuptools {version}" if version else "no setuptools"
    remedy = install(env, f"setuptools{_SETUPTOOLS}")
    if env.module("pkg_resources") is None:
        breaks = "robustbench.data cannot be imported: its loaders import pkg_resources"
        yield Diagnosis("pkg-resources", "broken", f"{evidence} and no pkg_resources", breaks, remedy, ("robustbench",))
    elif version and not (77, 0) <= tuple(int(p) for p in version.split(".")[:2] if p.isdigit()) < (82,):
        breaks = "the next version of setuptools may come without pkg_resources"
        yield Diagnosis("pkg-resources", "warn", f"{evidence}, out of {_SETUPTOOLS}", breaks, remedy)
    else:
        yield Diagnosis("pkg-resources", "ok", f"{evidence} has pkg_resources")


def optional(env: Environment) -> Iterator[Diagnosis]:
    """Check packages that only some attacks or data sets need."""
    if env.module("numba") is None:
        evidence, breaks = "numba is not installed", "Foolbox's Brendel-Bethge attacks end in an error"
        yield Diagnosis("numba", "warn", evidence, breaks, install(env, "numba>=0.60"))
    else:
        yield Diagnosis("numba", "ok", f"numba {env.version('numba')} for Foolbox's Brendel-Bethge attacks")
    if env.module("datasets") is None:
        extra = install(env, "datasets>=4", checkout="uv sync --extra hf")
        evidence = f"datasets is not installed: data sets of the Hugging Face hub need the extra, {extra}"
        yield Diagnosis("hub-datasets", "ok", evidence)
    else:
        yield Diagnosis(
            "hub-datasets", "ok", f"datasets {env.version('datasets')} for data sets of the Hugging Face hub"
        )


def _tree(file: Path) -> ast.Module:
    """Return the syntax tree of a file; an empty one if it cannot be parsed."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])
