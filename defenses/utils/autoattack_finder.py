"""Importer of the module `autoattack`, which robustbench imports and none of its dependencies installs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class AutoAttackFinder:
    """Finder of the top-level module `autoattack`: an installed one, else the package of that name beside this file."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where `autoattack` is, and None for any other name; its submodules need no finder of their own.

        Args:
            fullname: absolute name of a module.
            path: as in `importlib.abc.MetaPathFinder`.
            target: as in `importlib.abc.MetaPathFinder`.
        """
        if fullname != "autoattack":
            return None
        from importlib.util import spec_from_file_location
        from pathlib import Path

        for finder in [f for f in sys.meta_path if f is not self and hasattr(f, "find_spec")]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.origin is not None:  # None: a folder without __init__.py, whatever it holds
                return spec
        folder = Path(__file__).with_name("autoattack")
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


def provide_autoattack() -> None:
    """Let `import autoattack` find purebench's module where no other is installed; a second call changes nothing."""
    if not any(isinstance(finder, AutoAttackFinder) for finder in sys.meta_path):
        # First, because behind the others it would lose to any folder of that name on the path.
        sys.meta_path.insert(0, AutoAttackFinder())
