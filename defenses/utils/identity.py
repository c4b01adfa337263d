"""Identity of a module in memory: a digest of its classes, tensors and attributes, and its provenance."""

from __future__ import annotations

import hashlib
import inspect
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from defenses.utils.errors import UserError

# Tensors and children are hashed apart; outputs do not depend on the others.
_SEPARATE = {"_parameters", "_buffers", "_modules", "_calls", "provenance", "user_parts"}
_LIBRARY = ("torch", "builtins", "abc", "typing")  # modules whose classes are hashed by name


@dataclass(frozen=True)
class Provenance:
    """Origin of a registered defense.

    Args:
        name: its name.
        params: the parameters that `load_model` got, in canonical form.
        fingerprint: of the defense, see `defenses.zoo.registry.fingerprint`.
        state: its `identity` when it was loaded.
        training_seed: of its weights; None: the weights without a seed in their name.
    """

    name: str
    params: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    state: str
    training_seed: int | None = None


def identity(module: nn.Module) -> tuple[str, bool]:
    """Return a digest of all visible state that a module's outputs depend on.

    Hashed are, of every submodule: its class and bases (module, name, source; the code where there is no source; the
    name alone for torch's own), every parameter and buffer, hooks, and all other attributes: numbers, texts, None,
    tensors, arrays, dtypes, devices, paths, modules, classes, functions with their closures, and lists, tuples, sets
    and dicts of these. Not hashed are global variables, and functions outside that a class calls.

    Returns:
        (hex digest, True if all attributes could be hashed); if not, modules with equal digests may differ.
    """
    digest = _Digest()
    digest.add(module)
    return digest.sha.hexdigest(), digest.complete


def check_built(module: nn.Module) -> None:
    """Refuse a module whose `__init__` does not call that of `nn.Module`.

    Raises:
        UserError: it does not.
    """
    if "_modules" not in vars(module):
        raise UserError(f"{type(module).__name__}.__init__ does not call super().__init__(); let it be its first line")


class _Digest:
    """Running hash of values, each written with its kind, so that different values differ."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()
        self.complete = True
        self._seen: dict[int, int] = {}  # numbers of modules, functions and classes by id: they may refer to each other

    def _write(self, kind: str, text: str = "") -> None:
        self.sha.update(f"{kind} {len(text)} {text};".encode(errors="surrogatepass"))

    def add(self, value: Any) -> None:
        if value is None or value is ... or isinstance(value, bool | int | float | complex | str | bytes):
            self._write(type(value).__name__, repr(value))
        elif isinstance(value, torch.dtype | torch.device | PurePath):
            self._write("plain", str(value))
        elif isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray | np.generic) and value.dtype != object:
            self._write("array", f"{value.dtype} {value.shape}")
            self.sha.update(np.ascontiguousarray(value).tobytes())
        elif type(value) in (list, tuple, torch.Size):
            self._all(type(value).__name__, value)
        elif isinstance(value, set | frozenset):
            self._all("set", sorted(value, key=lambda v: (type(v).__name__, repr(v))))
        elif isinstance(value, Mapping):
            self._all("mapping", [part for pair in value.items() for part in pair])
        elif isinstance(value, nn.Module | type | types.FunctionType | types.BuiltinFunctionType | types.CodeType):
            self._once(value)
        else:
            self.complete = False

    def _all(self, kind: str, values: Iterable[Any]) -> None:
        listed = list(values)
        self._write(kind, str(len(listed)))
        for value in listed:
            self.add(value)

    def _once(self, value: Any) -> None:
        if id(value) in self._seen:
            self._write("again", str(self._seen[id(value)]))
            return
        self._seen[id(value)] = len(self._seen)
        if isinstance(value, nn.Module):
            self._module(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.CodeType):
            self._all("code", [value.co_code, value.co_names, value.co_varnames, value.co_consts])
        elif isinstance(value, types.FunctionType):
            self._all("function", [value.__code__, value.__defaults__, value.__kwdefaults__])
            self._all("enclosed", list(inspect.getclosurevars(value).nonlocals.values()))
        else:
            self._write("builtin", f"{value.__module__} {value.__qualname__}")

    def _module(self, module: nn.Module) -> None:
        check_built(module)
        self.add(type(module))
        attributes = vars(module)
        self.add({k: attributes[k] for k in sorted(attributes.keys() - _SEPARATE)})
        for group in ("_parameters", "_buffers", "_modules"):
            self.add(dict(attributes[group]))

    def _tensor(self, value: Tensor) -> None:
        self._write("tensor", f"{value.dtype} {tuple(value.shape)}")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            self.complete = False
            return
        flat = value.detach().cpu().contiguous().flatten()
        self.sha.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")

    def _class(self, cls: type) -> None:
        for base in cls.__mro__:
            # A plug-in's module is named after its file's name and contents, not its folder.
            self._write("class", f"{base.__module__} {base.__qualname__}")
            if base.__module__.partition(".")[0] in _LIBRARY:
                continue
            try:
                self._write("source", inspect.getsource(base))
            except (OSError, TypeError):
                members = {k: getattr(v, "__code__", v) for k, v in sorted(vars(base).items())}
                self.add({k: v for k, v in members.items() if not k.startswith("__") or isinstance(v, types.CodeType)})
