"""Signatures and classes of packages, read from their source without importing them."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from defenses.utils.errors import UserError


@dataclass(frozen=True)
class Parameters:
    """Arguments of a function.

    Args:
        names: in order.
        required: those without a default.
        open: True if the function takes any keyword.
        defaults: by name, where they are constants.
    """

    names: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    open: bool = False
    defaults: Mapping[str, object] = field(default_factory=dict)

    def without(self, *left_out: str) -> Parameters:
        """Return the arguments without some."""
        names = tuple(name for name in self.names if name not in left_out)
        required = tuple(name for name in self.required if name in names)
        return Parameters(names, required, self.open, {k: v for k, v in self.defaults.items() if k in names})


@dataclass(frozen=True)
class ClassFacts:
    """Facts of a class.

    Args:
        name: of the class.
        bases: names of all its bases.
        parameters: of its constructor.
        doc: its docstring.
    """

    name: str
    bases: tuple[str, ...]
    parameters: Parameters
    doc: str


@lru_cache
def package_folder(package: str) -> Path | None:
    """Return the folder of an installed top-level package; None if there is none."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


@lru_cache
def parse(path: Path, _stamp: int = 0) -> ast.Module:
    """Return the syntax tree of a file, read once for every stamp.

    Args:
        path: the file.
        _stamp: the time of its last change, where it may change.

    Raises:
        UserError: the file cannot be read or is not Python.
    """
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not valid Python: {error}") from None


@lru_cache
def exported(path: Path) -> dict[str, Path | str]:
    """Return the names that a package's `__init__` re-exports.

    Args:
        path: the `__init__.py`.

    Returns:
        {name: file that it comes from, or the name that it is an alias of}.
    """
    names: dict[str, Path | str] = {}
    for node in parse(path).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            source = _module_file(path, node)
            names.update({alias.asname or alias.name: source for alias in node.names})
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            names.update({t.id: node.value.id for t in node.targets if isinstance(t, ast.Name)})
    return names


@lru_cache
def class_facts(path: Path, name: str) -> ClassFacts:
    """Return the facts of a class in a file; its bases are followed through the file's relative imports.

    Raises:
        UserError: the file does not define the class (the library has changed).
    """
    tree = parse(path)
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if node is None:
        raise UserError(f"{path} has no class {name}; is the installed library complete?")
    bases = [b for b in map(_base_facts(path, tree), node.bases) if b]
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    inherited = next((b.parameters for b in bases if b.parameters.names), Parameters())
    return ClassFacts(
        name=name,
        bases=tuple(dict.fromkeys(n for b in bases for n in (b.name, *b.bases))),
        parameters=function_parameters(init, skip=1) if init else inherited,
        doc=ast.get_docstring(node) or "",
    )


def _base_facts(path: Path, tree: ast.Module) -> Any:
    files = {
        alias.asname or alias.name: _module_file(path, n)
        for n in tree.body
        if isinstance(n, ast.ImportFrom) and n.level
        for alias in n.names
    }
    local = {n.name for n in tree.body if isinstance(n, ast.ClassDef)}

    def facts(base: ast.expr) -> ClassFacts | None:
        if not isinstance(base, ast.Name):
            return None
        if base.id in local:
            return class_facts(path, base.id)
        return class_facts(files[base.id], base.id) if base.id in files else None

    return facts


def _module_file(path: Path, node: ast.ImportFrom) -> Path:
    folder = path.parents[node.level - 1]
    target = folder.joinpath(*(node.module or "").split("."))
    return target / "__init__.py" if target.is_dir() else target.with_suffix(".py")


def function_parameters(node: ast.FunctionDef, *, skip: int = 0) -> Parameters:
    """Return the arguments of a function definition without the first `skip`."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    last = positional[len(positional) - len(arguments.defaults) :]
    defaults = {a.arg: d for a, d in zip(last, arguments.defaults, strict=True)}
    defaults |= {a.arg: d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None}
    names = [a.arg for a in (*positional[skip:], *arguments.kwonlyargs)]
    return Parameters(
        names=tuple(names),
        required=tuple(n for n in names if n not in defaults),
        open=arguments.kwarg is not None,
        defaults={k: v for k, d in defaults.items() if (v := _constant(d)) is not None},
    )


def _constant(node: ast.expr) -> object:
    """Return a literal or a quotient of two numbers (8 / 255); None for anything else."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        above, below = _constant(node.left), _constant(node.right)
        return above / below if isinstance(above, int | float) and isinstance(below, int | float) else None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
