"""Read installed packages from their metadata and files, without importing them."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.machinery import PathFinder
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Environment:
    """An environment of installed packages.

    Args:
        paths: folders, searched in order, as in `sys.path`.
        python: version of the interpreter.
        project: pyproject.toml of a purebench checkout; None elsewhere.
        proc: folder of the kernel's NVIDIA driver.
        visible: CUDA_VISIBLE_DEVICES; None: not set.
        libraries: libraries whose files are checked.
    """

    paths: tuple[str, ...]
    python: tuple[int, int, int] = (3, 11, 0)
    project: Path | None = None
    proc: Path = Path("/proc/driver/nvidia")
    visible: str | None = None
    libraries: tuple[str, ...] = field(default=("robustbench", "torchattacks", "foolbox", "pyautoattack", "autoattack"))

    @classmethod
    def here(cls) -> Environment:
        """Return the environment of this process."""
        file = Path(__file__).parents[2] / "pyproject.toml"
        version = sys.version_info
        return cls(
            paths=tuple(sys.path),
            python=(version.major, version.minor, version.micro),
            project=file if file.is_file() else None,
            visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )

    def only(self, library: str) -> Environment:
        """Return the environment with the files of one library; those of AutoAttack have two names."""
        names = {"autoattack": ("autoattack", "pyautoattack")}.get(library, (library,))
        return replace(self, libraries=names)

    @cached_property
    def distributions(self) -> Mapping[str, Distribution]:
        """Installed distributions by normalised name; the first of several is the one in use."""
        by_name: dict[str, Distribution] = {}
        for distribution in importlib.metadata.distributions(path=list(self.paths)):
            name = distribution.metadata["Name"]
            if name:
                by_name.setdefault(normalised(name), distribution)
        return by_name

    def distribution(self, name: str) -> Distribution | None:
        """Return a distribution without reading the others; None if it is not installed."""
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
    def settings(self) -> Mapping[str, Any]:
        """Content of `project`."""
        return tomllib.loads(self.project.read_text(encoding="utf-8")) if self.project else {}


def normalised(name: str) -> str:
    """Return a distribution's name as the package index spells it."""
    return name.lower().replace("_", "-").replace(".", "-")


def recorded(distribution: Distribution, package: str) -> Iterator[tuple[str, Path, str]]:
    """Yield (name, path, SHA-256) of a package's Python files, from the RECORD of its distribution."""
    for file in distribution.files or ():
        if file.parts[0] == package and file.suffix == ".py" and file.hash is not None and file.hash.mode == "sha256":
            yield str(file), Path(str(distribution.locate_file(file))), file.hash.value


def digest(path: Path) -> str | None:
    """Return the SHA-256 of a file as a RECORD writes it; None if there is no such file."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
