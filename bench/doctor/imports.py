"""The only proof that a library can be imported: importing it, in a process of its own."""

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
    """A finding for each library; takes some ten seconds."""
    return [_imported(library, module) for library, module in _MODULES.items()]


def _imported(library: str, module: str) -> Diagnosis:
    begin = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Diagnosis(f"import-{library}", "ok", f"import {module}: {time.perf_counter() - begin:.1f} s")
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    breaks = f"{library} cannot be imported"
    return Diagnosis(
        f"import-{library}", "broken", f"import {module}: {last}", breaks, "see the findings above", (library,)
    )
