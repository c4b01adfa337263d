"""Read installed packages without importing them, and name the commands that mend them."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import PathFinder
from importlib.metadata import Distribution
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """An environment of installed packages.

    Args:
        paths: folders, searched in order, as in `sys.path`.
        python: version of the interpreter.
        checkout: purebench is imported from a clone.
        proc: folder of the kernel's NVIDIA driver.
        visible: CUDA_VISIBLE_DEVICES; None: not set.
        libraries: libraries whose files are checked.
    """

    paths: tuple[str, ...]
    python: tuple[int, int, int] = (3, 11, 0)
    checkout: bool = False
    proc: Path = Path("/proc/driver/nvidia")
    visible: str | None = None
    libraries: tuple[str, ...] = ("robustbench", "torchattacks", "foolbox", "pyautoattack", "autoattack")

    @classmethod
    def here(cls) -> Environment:
        """Return the environment of this process."""
        checkout = (Path(__file__).parents[2] / "pyproject.toml").is_file()
        return cls(
            tuple(sys.path), sys.version_info[:3], checkout=checkout, visible=os.environ.get("CUDA_VISIBLE_DEVICES")
        )

    def distribution(self, name: str) -> Distribution | None:
        """Return a distribution; None if it is not installed."""
        return next(iter(importlib.metadata.distributions(name=name, path=list(self.paths))), None)

    def version(self, name: str) -> str | None:
        """Return the version of a distribution; None if it is not installed."""
        distribution = self.distribution(name)
        return distribution.version if distribution else None

    def module(self, name: str) -> Path | None:
        """Return the file of a top-level module, or the folder of a package; None if there is none."""
        spec = PathFinder.find_spec(name, list(self.paths))
        if spec is None or spec.origin is None:
            return None
        origin = Path(spec.origin)
        return origin.parent if origin.name == "__init__.py" else origin

    @cached_property
    def installer(self) -> str:
        """Command that installed purebench, "pip install" or "uv pip install"; "" where `uv sync` manages all."""
        purebench = self.distribution("purebench")
        tool = (purebench.read_text("INSTALLER") or "").strip() if purebench else ""
        if tool == "pip":
            return "pip install"
        return "uv pip install" if tool == "uv" and not self.checkout else ""

    def install(self, requirement: str) -> str:
        """Return the command for a requirement, as "scipy<2", that is missing, or there in another version."""
        return f'{self.installer} "{requirement}"' if self.installer else "uv sync"

    def reinstall(self, *names: str) -> str:
        """Return the command that writes the files of a distribution again, or chooses the versions of several anew."""
        if not self.installer:
            return " ".join(["uv sync", *(f"--reinstall-package {name}" for name in names)])
        force = "--force-reinstall" if self.installer == "pip install" else "--reinstall"
        what = " ".join(names) if len(names) > 1 else f"--no-deps {names[0]}=={self.version(names[0])}"
        return f"{self.installer} {force} {what}"
