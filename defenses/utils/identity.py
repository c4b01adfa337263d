"""Identity of a module in memory: a digest of its classes, tensors and attributes, and its provenance."""

from __future__ import annotations

import copyreg
import hashlib
import inspect
import io
import re
import types
import weakref
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from defenses.utils.errors import UserError
from defenses.utils.globals_read import functions_of, globals_read
from defenses.utils.json_values import JsonView
from defenses.utils.namespaces import plain_name
from defenses.utils.plugin_code import is_users
from defenses.utils.source_code import plain_text

# Tensors and children are hashed apart; outputs do not depend on the others.
_SEPARATE = {"_parameters", "_buffers", "_modules", "_calls", "provenance", "user_parts"}
_NOT_CODE = (b".debug_pkl", b"serialization_id")  # files of TorchScript
_MANGLED = re.compile(rb"[./]?___torch_mangle_\d+")
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
    params: Mapping[str, object]
    fingerprint: JsonView
    state: str
    training_seed: int | None = None


class _Pair(NamedTuple):
    digest: str
    complete: bool


class Identity(_Pair):
    """Digest of a module: (hex digest, True if all attributes could be hashed).

    If not, modules with equal digests may differ, and `problem` names the first attribute, as "net.cfg is a lock".
    """

    problem: str = ""


def identity(module: nn.Module, *, follow: bool = False) -> Identity:
    """Return a digest of all visible state that a module's outputs depend on.

    Hashed are, of every submodule: its class and bases (module, name, source; the code where there is no source; the
    name alone for torch's own), every parameter and buffer, hooks, and all other attributes: numbers, texts, None,
    tensors, arrays, dtypes, devices, paths, modules, classes, functions with their closures, lists, tuples, sets and
    dicts of these, and objects with the attributes that they hold or pickle.

    Args:
        module: the module.
        follow: hash also what the user's code reads of global variables: values, functions and classes of the user, and
            what these read; what is of a library counts by its name.
    """
    digest = _Digest(follow=follow)
    digest.add(module)
    found = Identity(digest.sha.hexdigest(), not digest.problem)
    found.problem = digest.problem
    return found


def check_built(module: nn.Module) -> None:
    """Refuse a module whose `__init__` does not call that of `nn.Module`.

    Raises:
        UserError: it does not.
    """
    if "_modules" not in vars(module) and not isinstance(module, torch.jit.ScriptModule):
        raise UserError(f"{type(module).__name__}.__init__ does not call super().__init__(); let it be its first line")


class _Digest:
    """Running hash of values, each written with its kind, so that different values differ."""

    def __init__(self, *, follow: bool) -> None:
        self.sha = hashlib.sha256()
        self.follow = follow
        self.problem = ""  # of the first value that cannot be hashed
        self._seen: dict[int, int] = {}  # numbers of modules, functions, objects by id: they may refer to each other
        self._held: list[object] = []  # those objects, so that no other one gets their id
        self._place: list[str] = []  # attributes on the way to the present value

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
            self._mapping(value)
        else:
            self._once(value)

    def _mapping(self, value: Mapping[object, object]) -> None:
        self._write("mapping", str(2 * len(value)))
        for key, inner in value.items():
            self.add(key)
            self._place.append(str(key))
            self.add(inner)
            self._place.pop()

    def _refuse(self, kind: str) -> None:
        """Record that a value cannot be hashed."""
        self.problem = self.problem or f"{'.'.join(self._place) or 'the model'} is {kind}"

    def _all(self, kind: str, values: Iterable[Any]) -> None:
        listed = list(values)
        self._write(kind, str(len(listed)))
        for value in listed:
            self.add(value)

    def _once(self, value: object) -> None:
        if id(value) in self._seen:
            self._write("again", str(self._seen[id(value)]))
            return
        self._seen[id(value)] = len(self._seen)
        self._held.append(value)
        if isinstance(value, nn.Module):
            self._module(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.CodeType):
            self._all("code", [value.co_code, value.co_names, value.co_varnames, value.co_consts])
        elif isinstance(value, types.FunctionType):
            self._all("function", [_code(value), value.__defaults__, value.__kwdefaults__])
            self._all("enclosed", list(inspect.getclosurevars(value).nonlocals.values()))
            self._globals([value])
        elif isinstance(value, types.BuiltinFunctionType):
            self._write("builtin", f"{value.__module__} {value.__qualname__}")
        elif isinstance(value, types.ModuleType):
            self._write("library", plain_name(value.__name__))
        elif isinstance(value, weakref.ref):
            self._all("reference", [value()])
        elif isinstance(value, types.MethodType):
            self._all("method", [value.__func__, value.__self__])
        else:
            self._object(value)

    def _object(self, value: object) -> None:
        """Hash an object by what it would pickle; a user's by its attributes, as it may leave some out of pickles."""
        if type(value) is object:  # nothing but itself tells it from others
            self._refuse("an object without attributes")
            return
        self.add(type(value))
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            reduced = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        except Exception:
            self._refuse(f"a {type(value).__module__}.{type(value).__qualname__}")
            return
        parts = (value.__module__, reduced) if isinstance(reduced, str) else reduced
        self.add([list(part) if isinstance(part, Iterator) else part for part in parts])
        if is_users(type(value).__module__):
            self.add(_attributes(value))

    def _module(self, module: nn.Module) -> None:
        if type(module).__name__ == "OptimizedModule":  # of torch.compile, which holds what differs from call to call
            module = cast(nn.Module, module._orig_mod)
        check_built(module)
        if isinstance(module, torch.jit.ScriptModule):
            self._script(module)
            return
        if isinstance(module, torch.fx.GraphModule):
            self._graph(module)
            return
        self.add(type(module))
        attributes = vars(module)
        self.add({k: attributes[k] for k in sorted(attributes.keys() - _SEPARATE)})
        for group in ("_parameters", "_buffers", "_modules"):
            self.add(dict(attributes[group]))

    def _script(self, module: torch.jit.ScriptModule) -> None:
        """Hash TorchScript by what it would save: its code, constants and tensors."""
        saved = io.BytesIO()
        torch.jit.save(module, saved)
        with zipfile.ZipFile(saved) as archive:
            files = [(name.partition("/")[2].encode(), archive.read(name)) for name in archive.namelist()]
        # Not where its source was, nor numbers that tell apart what a process has compiled.
        kept = ([_MANGLED.sub(b"", part) for part in pair] for pair in files if not pair[0].endswith(_NOT_CODE))
        self._all("script", sorted(kept))

    def _graph(self, module: torch.fx.GraphModule) -> None:
        """Hash a traced or exported program by its code, tensors and parts: its graph has counters of the process."""
        attributes = vars(module)
        self._write("graph", module.code)
        self.add({name: value for name, value in sorted(attributes.items()) if isinstance(value, Tensor)})
        for group in ("_parameters", "_buffers", "_modules"):
            self.add({name: part for name, part in attributes[group].items() if name != "_guards_fn"})

    def _tensor(self, value: Tensor) -> None:
        self._write("tensor", f"{value.dtype} {tuple(value.shape)}")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            self._refuse(f"a tensor of layout {value.layout} on {value.device}")
            return
        flat = value.detach().cpu().contiguous().flatten()
        self.sha.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")

    def _class(self, cls: type) -> None:
        for base in cls.__mro__:
            self._write("class", f"{plain_name(base.__module__)} {base.__qualname__}")
            if base.__module__.partition(".")[0] in _LIBRARY:
                continue
            try:
                source = inspect.getsource(base)
                self._write("source", plain_text(source) if is_users(base.__module__) else source)
            except (OSError, TypeError):
                self.add({k: v for k, v in map(_member, sorted(vars(base).items())) if v is not None})
            self._globals(functions_of(base))

    def _globals(self, functions: Iterable[types.FunctionType]) -> None:
        """Hash the global values that functions of the user read."""
        for function in functions if self.follow else ():
            for name, value in globals_read(function).items() if is_users(function.__module__) else ():
                self._write("global", name)
                self._place.append(name)
                if library := _library_name(value):
                    self._write("library", library)
                else:
                    self.add(value)
                self._place.pop()


def _library_name(value: object) -> str:
    """Return the name of a function or class of a library; "" for anything else."""
    home = getattr(value, "__module__", None)
    if not callable(value) or isinstance(value, nn.Module) or not isinstance(home, str) or is_users(home):
        return ""
    return f"{home}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _member(pair: tuple[str, object]) -> tuple[str, object]:
    """Return the name of a class's member, and the code of a function, or a value; None: it is of neither kind."""
    name, value = pair
    function = getattr(value, "fget", getattr(value, "__func__", value))
    code = getattr(function, "__code__", None)
    if code is not None:
        return name, code
    return name, value if not name.startswith("__") and isinstance(value, bool | int | float | str | tuple) else None


def _code(function: types.FunctionType) -> types.CodeType:
    """Return the code of a function, of a user's without its docstring."""
    code = function.__code__
    documented = function.__doc__ is not None and code.co_consts[:1] == (function.__doc__,)
    return code.replace(co_consts=(None, *code.co_consts[1:])) if documented and is_users(function.__module__) else code


def _attributes(value: object) -> dict[str, object]:
    """Return the attributes of an object."""
    names = [name for base in type(value).__mro__ for name in _slots(base)]
    slots = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return dict(sorted((slots | getattr(value, "__dict__", {})).items()))


def _slots(cls: type) -> list[str]:
    """Return the attributes that a class keeps without a dict."""
    slots = vars(cls).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]
