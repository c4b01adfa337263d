"""Attack libraries as read from their source files: importing them would cost seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from defenses.utils.errors import UserError, unknown
from defenses.utils.introspection import ClassFacts, class_facts, exported, package_folder


@dataclass(frozen=True)
class LibrarySource:
    """Source files of an attack library whose attacks are classes.

    Args:
        package: name of the library.
        folder: of the module that exports the attacks, inside the package.
    """

    package: str
    folder: str = ""

    def exports(self) -> dict[str, Path | str]:
        """Return {name: file of the class, or the name that it is an alias of}; {} if the library is not installed."""
        package = package_folder(self.package)
        return exported(package / self.folder / "__init__.py") if package else {}

    def class_name(self, local: str) -> str:
        """Return the name of an attack's class, which differs for an alias."""
        while isinstance(source := self.exports().get(local), str):
            local = source
        return local

    def facts(self, local: str) -> ClassFacts:
        """Return bases, parameters and docstring of an attack's class."""
        name = self.class_name(local)
        file = self.exports()[name]
        assert isinstance(file, Path)
        return class_facts(file, name)

    def check_name(self, local: str, names: Iterable[str]) -> None:
        """Refuse an attack that the library does not have.

        Args:
            local: its name.
            names: the library's attacks.

        Raises:
            UserError: the library is not installed, or the name is unknown (nearest names given).
        """
        name = f"{self.package}:{local}"
        if package_folder(self.package) is None:
            raise UserError(f"{name}: {self.package} is not installed; pip install {self.package}")
        names = list(names)
        if local not in names:
            raise unknown("attack", name, [f"{self.package}:{n}" for n in names])
