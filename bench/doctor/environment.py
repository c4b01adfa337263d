"""What is installed, as its metadata and files say: nothing is imported."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
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
    """A place with packages.

    Args:
        paths: folders, searched in order, as in `sys.path`.
        python: version of the interpreter.
        project: purebench's own pyproject.toml, in a checkout; None elsewhere.
        proc: where the kernel tells of drivers.
        visible: CUDA_VISIBLE_DEVICES, where set.
        libraries: whose files are looked at; empty: all that purebench attacks with.
    """

    paths: tuple[str, ...]
    python: tuple[int, int, int] = (3, 11, 0)
    project: Path | None = None
    proc: Path = Path("/proc/driver/nvidia")
    visible: str | None = None
    libraries: tuple[str, ...] = field(default=("robustbench", "torchattacks", "foolbox", "pyautoattack", "autoattack"))

    @classmethod
    def here(cls) -> Environment:
        """The environment of this process."""
        import os

        file = Path(__file__).parents[2] / "pyproject.toml"
        version = sys.version_info
        return cls(
            paths=tuple(sys.path),
            python=(version.major, version.minor, version.micro),
            project=file if file.is_file() else None,
            visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )

    def only(self, library: str) -> Environment:
        """The same, but of libraries' files only those of one, which AutoAttack has under another name."""
        names = {"autoattack": ("autoattack", "pyautoattack")}.get(library, (library,))
        return replace(self, libraries=names)

    @cached_property
    def distributions(self) -> Mapping[str, Distribution]:
        """What is installed, by normalised name; of several the first is the one that is used."""
        found: dict[str, Distribution] = {}
        for distribution in importlib.metadata.distributions(path=list(self.paths)):
            name = distribution.metadata["Name"]
            if name:
                found.setdefault(normalised(name), distribution)
        return found

    def distribution(self, name: str) -> Distribution | None:
        """One of them, found without reading the others."""
        return next(iter(importlib.metadata.distributions(name=name, path=list(self.paths))), None)

    def version(self, name: str) -> str | None:
        """The version of a distribution; None if it is not installed."""
        found = self.distribution(name)
        return found.version if found else None

    def module(self, name: str) -> Path | None:
        """The file of a top-level module, or the folder of a package; None if there is none."""
        spec = PathFinder.find_spec(name, list(self.paths))
        if spec is None or spec.origin is None:
            return None
        origin = Path(spec.origin)
        return origin.parent if origin.name == "__init__.py" else origin

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The content of `project`."""
        return tomllib.loads(self.project.read_text(encoding="utf-8")) if self.project else {}


def normalised(name: str) -> str:
    """A distribution's name in the spelling of the package index."""
    return name.lower().replace("_", "-").replace(".", "-")


def recorded(distribution: Distribution, package: str) -> Iterator[tuple[str, Path, str]]:
    """(name, place, SHA-256) of the Python files of a package, as the RECORD of its distribution says."""
    for file in distribution.files or ():
        if file.parts[0] == package and file.suffix == ".py" and file.hash is not None and file.hash.mode == "sha256":
            yield str(file), Path(str(distribution.locate_file(file))), file.hash.value


def digest(path: Path) -> str | None:
    """The SHA-256 of a file as a RECORD writes it; None if there is no such file."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
