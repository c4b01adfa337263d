"""Pickles that plug-ins read: their classes are found where the plug-in's code finds them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any


def find_classes_by(locate: Callable[[str], str]) -> None:
    """Let `pickle`, and the libraries that read with it, find classes by another name of their module.

    A second call changes nothing.

    Args:
        locate: from the module that a pickle names to the one that is imported.
    """
    if hasattr(pickle.Unpickler, "finds_private_classes"):
        return
    plain: Any = pickle.Unpickler
    written_in_python: Any = pickle._Unpickler.find_class

    class Unpickler(plain):  # type: ignore[misc]
        """The unpickler of Python, with other names of modules."""

        finds_private_classes = True

        def find_class(self, module: str, name: str) -> object:
            return super().find_class(locate(module), name)

    def load(file: Any, **options: object) -> Any:
        return Unpickler(file, **options).load()

    def loads(data: Any, /, **options: object) -> object:
        return Unpickler(io.BytesIO(data), **options).load()

    def find_class(self: Any, module: str, name: str) -> object:
        return written_in_python(self, locate(module), name)

    pickle.Unpickler, pickle.load, pickle.loads = Unpickler, load, loads  # type: ignore[misc]
    pickle._Unpickler.find_class = find_class  # type: ignore[method-assign]
