"""Import every library, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.doctor.finding import Diagnosis

_MODULES = {
    "torchvision": "torchvision.ops",
    "autoattack": "pyautoattack",
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "robustbench": "defenses, robustbench.eval",  # defenses provides the module autoattack
}


def imports() -> list[Diagnosis]:
    """Return a finding for each library; takes some ten seconds."""
    return [_try_import(library, module) for library, module in _MODULES.items()]


def _try_import(library: str, module: str) -> Diagnosis:
    """Return the finding of importing a module."""
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", f"import {module}"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode == 0:
        return Diagnosis(f"import-{library}", "ok", f"import {module}: {time.perf_counter() - start:.1f} s")
    last = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    evidence, breaks = f"import {module}: {last}", f"{library} cannot be imported"
    return Diagnosis(f"import-{library}", "broken", evidence, breaks, "see the findings above", (library,))
