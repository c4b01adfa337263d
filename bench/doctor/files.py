"""Checks of the libraries' files on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.doctor.environment import Environment, digest, recorded
from bench.doctor.finding import Diagnosis
from bench.doctor.remedy import install, installer, reinstall, reinstall_pair

REPACKED = 'in pyproject.toml: [tool.uv.sources] torchattacks = { path = ".packaging/torchattacks" }'
_USERS = {"pyautoattack": ("autoattack",), "autoattack": ("autoattack",)}


def complete(env: Environment) -> Iterator[Diagnosis]:
    """Check that every library has the files of its RECORD, unchanged."""
    for name in env.libraries:
        distribution = env.distribution(name)
        if distribution is None:
            if name not in ("pyautoattack", "autoattack"):  # one of the two is enough: see `modules.autoattack`
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
        wrong = [(file, "missing" if actual is None else "another file") for file, path, sha in listed
                 if (actual := digest(path)) != sha]  # fmt: skip
        check, title = f"{name}-files", f"{name} {distribution.version}"
        if not listed:
            remedy = reinstall(env, name)
            evidence = f"{title}: its RECORD lists no file, so none can be compared"
            yield Diagnosis(check, "broken", evidence, f"{name} is unverified", remedy, (name, *_USERS.get(name, ())))
            continue
        if not wrong:
            yield Diagnosis(check, "ok", f"{title}: {len(listed)} files are those of its RECORD")
            continue
        examples = ", ".join(f"{file} ({problem})" for file, problem in wrong[:2])
        breaks = f"{name} is not the {name} that was installed"
        remedy = reinstall(env, name)
        if name == "robustbench" and _strays(env):
            breaks += ": torchattacks put its old copy over it"
            remedy = remedy if installer(env) else f"{REPACKED}; then {remedy}"
        evidence = f"{title}: {len(wrong)} of {len(listed)} files differ from its RECORD, as {examples}"
        yield Diagnosis(check, "broken", evidence, breaks, remedy, (name, *_USERS.get(name, ())))


def _strays(env: Environment) -> list[str]:
    """Return the files of `robustbench` that torchattacks claims."""
    torchattacks = env.distribution("torchattacks")
    return [str(f) for f in (torchattacks.files or ()) if f.parts[0] == "robustbench"] if torchattacks else []


def stray(env: Environment) -> Iterator[Diagnosis]:
    """Check that torchattacks brings no files of `robustbench`, which may overwrite the real ones."""
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
