"""Check that the installed torch can use the GPU of this machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from bench.doctor.environment import Environment
from bench.doctor.finding import Diagnosis
from bench.doctor.remedy import install, installer, reinstall_pair

_DRIVERS = {11: 450, 12: 525, 13: 580}  # CUDA's major version -> the oldest Linux driver that runs it


def accelerator(env: Environment) -> Iterator[Diagnosis]:
    """Check for a CPU build beside an NVIDIA GPU, a driver too old for the build, and hidden GPUs."""
    folder = env.module("torch")
    if folder is None:
        remedy = install(env, "torch", checkout="uv sync")
        yield Diagnosis("gpu", "broken", "torch is not installed", "nothing can run", remedy, ("autoattack", "foolbox"))
        return
    cuda, driver = _cuda(folder / "version.py"), _driver(env.proc)
    build = f"torch {env.version('torch')}"
    if driver is None:
        target = f"{build} is built for CUDA {cuda}" if cuda else f"{build} is built for the CPU"
        yield Diagnosis("gpu", "ok", f"{target}; no NVIDIA driver is loaded, so models run on the CPU")
        return
    loaded = f"an NVIDIA driver {driver} is loaded"
    if cuda is None:
        cpu_index = "not from its CPU index" if installer(env) else "no CPU index in [tool.uv.sources]"
        remedy = f"take both from PyPI or PyTorch's CUDA index ({cpu_index}); then "
        remedy += reinstall_pair(env, "torch", "torchvision")
        yield Diagnosis("gpu", "warn", f"{loaded}, but {build} is built for the CPU", "--device cuda", remedy)
        return
    oldest = _DRIVERS.get(int(cuda.partition(".")[0]), 0)
    if int(driver.partition(".")[0]) < oldest:
        remedy = f"update the driver to {oldest} or newer, or take a torch built for an older CUDA"
        yield Diagnosis("gpu", "warn", f"{loaded}; {build} for CUDA {cuda} needs {oldest}", "--device cuda", remedy)
    elif env.visible in ("", "-1"):
        evidence = f"{loaded} and {build} is built for CUDA {cuda}, but CUDA_VISIBLE_DEVICES hides the GPUs"
        yield Diagnosis("gpu", "warn", evidence, "--device cuda", "unset CUDA_VISIBLE_DEVICES")
    else:
        yield Diagnosis("gpu", "ok", f"{loaded} and {build} is built for CUDA {cuda}")


def _cuda(file: Path) -> str | None:
    """Return the CUDA version of torch/version.py; None: a CPU build, or no such file."""
    if not file.is_file():
        return None
    for node in ast.parse(file.read_bytes()).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(t, ast.Name) and t.id == "cuda" for t in targets):
            value = ast.literal_eval(node.value)
            return None if value is None else str(value)
    return None


def _driver(proc: Path) -> str | None:
    """Return the version of the loaded NVIDIA driver; None if there is none."""
    try:
        version = re.search(r"\b(\d{3,}\.\d[\d.]*)\b", (proc / "version").read_text())
    except OSError:
        return None
    return version[1] if version else None
