"""Files on disk that are not those of the library that claims them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.doctor.environment import Environment, digest, recorded
from bench.doctor.finding import Diagnosis
from bench.doctor.remedy import install, installer, reinstall, reinstall_pair

REPACKED = 'in pyproject.toml: [tool.uv.sources] torchattacks = { path = ".packaging/torchattacks" }'
_USERS = {"pyautoattack": ("autoattack",), "autoattack": ("autoattack",)}


def complete(env: Environment) -> Iterator[Diagnosis]:
    """Every library that attacks with has the files that its RECORD lists, unchanged."""
    for name in env.libraries:
        distribution = env.distribution(name)
        if distribution is None:
            if name not in ("pyautoattack", "autoattack"):  # either will do: see `modules.autoattack`
                yield Diagnosis(
                    f"{name}-files",
                    "broken",
                    f"{name} is not installed",
                    f"{name} cannot be used",
                    f"install it: {install(env, name, checkout='uv sync')}",
                    (name,),
                )
            continue
        listed = list(recorded(distribution, name))
        wrong = [(file, "missing" if found is None else "another file") for file, place, sha in listed
                 if (found := digest(place)) != sha]  # fmt: skip
        check, title = f"{name}-files", f"{name} {distribution.version}"
        if not listed:
            remedy = reinstall(env, name)
            evidence = f"{title}: its RECORD lists no file, so none can be compared"
            yield Diagnosis(check, "broken", evidence, f"{name} may be anything", remedy, (name, *_USERS.get(name, ())))
            continue
        if not wrong:
            yield Diagnosis(check, "ok", f"{title}: {len(listed)} files are those of its RECORD")
            continue
        examples = ", ".join(f"{file} ({how})" for file, how in wrong[:2])
        breaks = f"{name} is not the {name} that was installed"
        remedy = reinstall(env, name)
        if name == "robustbench" and _strays(env):
            breaks += ": torchattacks put its old copy over it"
            remedy = remedy if installer(env) else f"{REPACKED}; then {remedy}"
        evidence = f"{title}: {len(wrong)} of {len(listed)} files differ from its RECORD, as {examples}"
        yield Diagnosis(check, "broken", evidence, breaks, remedy, (name, *_USERS.get(name, ())))


def _strays(env: Environment) -> list[str]:
    found = env.distribution("torchattacks")
    return [str(f) for f in (found.files or ()) if f.parts[0] == "robustbench"] if found else []


def stray(env: Environment) -> Iterator[Diagnosis]:
    """The wheels of torchattacks bring an old `robustbench`, which the next installation may put over the real one."""
    files = _strays(env)
    if not files:
        yield Diagnosis("torchattacks-stray", "ok", "torchattacks brings no files of robustbench")
        return
    evidence = f"torchattacks claims {len(files)} files of robustbench, as {files[0]}"
    remedy = f"{REPACKED}; then {reinstall_pair(env, 'torchattacks', 'robustbench')}"
    if installer(env):
        if all(f.status == "ok" for f in complete(replace(env, libraries=("robustbench",)))):
            yield Diagnosis("torchattacks-stray", "ok", f"{evidence}; those on disk are robustbench's")
            return
        remedy = reinstall(env, "robustbench")
    yield Diagnosis("torchattacks-stray", "warn", evidence, "whichever of the two is installed last wins", remedy)


def tests_package(env: Environment) -> Iterator[Diagnosis]:
    """RobustBench installs a top-level package `tests`, which a project's own package of that name would meet."""
    found = env.distribution("robustbench")
    ships = any(str(f) == "tests/__init__.py" for f in (found.files or ())) if found else False
    own = env.project.parent / "tests" / "__init__.py" if env.project else None
    if not ships:
        yield Diagnosis("tests-package", "ok", "robustbench brings no package tests")
    elif own is None or not own.is_file():
        yield Diagnosis("tests-package", "ok", "robustbench brings a package tests; nothing here imports one")
    else:
        yield Diagnosis(
            "tests-package",
            "warn",
            f"robustbench brings a package tests, and {own} makes another",
            "import tests finds one or the other",
            f"remove {own}; pytest needs no package",
        )
