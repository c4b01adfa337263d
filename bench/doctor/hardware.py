"""Check that the installed torch can use the GPU of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bench.doctor.environment import Environment
from bench.doctor.finding import Diagnosis

_DRIVERS = {11: 450, 12: 525, 13: 580}  # CUDA's major version -> the oldest Linux driver that runs it


def accelerator(env: Environment) -> Iterator[Diagnosis]:
    """Check for a CPU build beside an NVIDIA GPU, a driver too old for the build, and hidden GPUs."""
    folder = env.module("torch")
    if folder is None:
        concerns = ("autoattack", "foolbox")
        yield Diagnosis("gpu", "broken", "torch is not installed", "nothing can run", env.install("torch"), concerns)
        return
    cuda = _first(folder / "version.py", r"^cuda\b[^=\n]*= *['\"]([\d.]+)")
    driver = _first(env.proc / "version", r"\b(\d{3,}\.\d[\d.]*)\b")
    build = f"torch {env.version('torch')} is built for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    loaded = f"an NVIDIA driver {driver} is loaded"
    oldest = _DRIVERS.get(int(cuda.partition(".")[0]), 0) if cuda else 0
    remedy = ""
    if not driver:
        loaded = "no NVIDIA driver is loaded, so models run on the CPU"
    elif not cuda:
        cpu_index = "not from its CPU index" if env.installer else "no CPU index in [tool.uv.sources]"
        remedy = f"take both from PyPI or PyTorch's CUDA index ({cpu_index}); then "
        remedy += env.reinstall("torch", "torchvision")
    elif int(driver.partition(".")[0]) < oldest:
        build += f", which needs {oldest}"
        remedy = f"update the driver to {oldest} or newer, or take a torch built for an older CUDA"
    elif env.visible in ("", "-1"):
        build += ", but CUDA_VISIBLE_DEVICES hides the GPUs"
        remedy = "unset CUDA_VISIBLE_DEVICES"
    breaks = "--device cuda" if remedy else ""
    yield Diagnosis("gpu", "warn" if remedy else "ok", f"{loaded}; {build}", breaks, remedy)


def _first(file: Path, pattern: str) -> str:
    """Return the first group of a pattern in a file; "" where there is none, or no file."""
    try:
        match = re.search(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return ""
    return match[1] if match else ""
