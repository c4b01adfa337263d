"""Check the libraries' files on disk."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from importlib.metadata import Distribution

from bench.doctor.environment import Environment
from bench.doctor.finding import Diagnosis


def complete(env: Environment) -> Iterator[Diagnosis]:
    """Check that every library has the files of its RECORD, unchanged."""
    for name in env.libraries:
        distribution, check = env.distribution(name), f"{name}-files"
        concerns = (name, "autoattack") if name == "pyautoattack" else (name,)
        if distribution is None:
            if name not in ("pyautoattack", "autoattack"):  # one of the two is enough: see `modules.autoattack`
                remedy = f"install it: {env.install(name)}"
                yield Diagnosis(check, "broken", f"{name} is not installed", f"{name} cannot be used", remedy, concerns)
            continue
        found, title = _compared(distribution, name), f"{name} {distribution.version}"
        wrong = [f"{file} ({problem})" for file, problem in found.items() if problem]
        if wrong:
            breaks = f"{name} is not the {name} that was installed"
            if name == "robustbench" and _overwritten(env):
                breaks += ": torchattacks put its old copy over it"
            evidence = f"{title}: {len(wrong)} of {len(found)} files differ from its RECORD, as {', '.join(wrong[:2])}"
            yield Diagnosis(check, "broken", evidence, breaks, env.reinstall(name), concerns)
        elif found:
            yield Diagnosis(check, "ok", f"{title}: {len(found)} files are those of its RECORD")
        else:
            evidence = f"{title}: its RECORD lists no file, so none can be compared"
            yield Diagnosis(check, "broken", evidence, f"{name} is unverified", env.reinstall(name), concerns)


def _compared(distribution: Distribution, package: str) -> dict[str, str]:
    """Return the Python files of a package by the RECORD of its distribution, with what is wrong; "" where nothing."""
    found = {}
    for file in distribution.files or ():
        if file.parts[0] == package and file.suffix == ".py" and file.hash is not None and file.hash.mode == "sha256":
            try:
                digest = hashlib.sha256(file.read_binary()).digest()
            except OSError:
                found[str(file)] = "missing"
            else:
                same = base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value
                found[str(file)] = "" if same else "another file"
    return found


def _overwritten(env: Environment) -> bool:
    """Return True if torchattacks claims files of robustbench: whichever is installed last wins."""
    torchattacks = env.distribution("torchattacks")
    return torchattacks is not None and any(f.parts[0] == "robustbench" for f in torchattacks.files or ())
