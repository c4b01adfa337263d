"""Facts about a library's classes, read from its source files: importing it would cost seconds."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from defenses.utils.errors import UserError, unknown

ENOUGH_STEPS = 100
ENOUGH_QUERIES = 2000  # of 200 digits, PGD-AT, Square leaves 72.0% standing in Linf at 500, 68.0% at 1000, 64.5% at
# 2000 and at 5000 [measured]
_BUDGETS = {"n_queries": ENOUGH_QUERIES} | dict.fromkeys(("steps", "max_iterations", "repeats"), ENOUGH_STEPS)
GREEDY = "follows one greedy path to the nearest boundary; report no robustness from it alone"  # DeepFool


@dataclass(frozen=True)
class Parameters:
    """The arguments of a function: names in order, those without a default, whether any name goes, plain defaults."""

    names: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    open: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassFacts:
    """A class: its name, those of all its bases, its constructor's arguments and its docstring."""

    name: str
    bases: tuple[str, ...]
    parameters: Parameters
    doc: str


@lru_cache
def package_folder(package: str) -> Path | None:
    """The folder of an installed top-level package; None if there is none."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


@lru_cache
def parse(path: Path, stamp: int = 0) -> ast.Module:  # noqa: ARG001
    """The syntax tree of a file, read once for every stamp (the time of its last change, where it may change).

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
    """What a package's `__init__` re-exports: name -> file that it comes from, or name -> name for an alias."""
    found: dict[str, Path | str] = {}
    for node in parse(path).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            source = _module_file(path, node)
            found.update({alias.asname or alias.name: source for alias in node.names})
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            found.update({t.id: node.value.id for t in node.targets if isinstance(t, ast.Name)})
    return found


@lru_cache
def class_facts(path: Path, name: str) -> ClassFacts:
    """A class of a file; its bases are followed through the file's relative imports.

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
    """The arguments of a function definition, the first `skip` left out."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    last = positional[len(positional) - len(given.defaults) :]
    defaults = {a.arg: d for a, d in zip(last, given.defaults, strict=True)}
    defaults |= {a.arg: d for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d is not None}
    names = [a.arg for a in (*positional[skip:], *given.kwonlyargs)]
    return Parameters(
        names=tuple(names),
        required=tuple(n for n in names if n not in defaults),
        open=given.kwarg is not None,
        defaults={k: v for k, d in defaults.items() if (v := _constant(d)) is not None},
    )


def _constant(node: ast.expr) -> Any:
    """A literal or a quotient of two numbers (8 / 255); None for anything else."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        above, below = _constant(node.left), _constant(node.right)
        return above / below if isinstance(above, int | float) and isinstance(below, int | float) else None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def check_params(attack: str, params: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse parameters that an attack does not take.

    Raises:
        UserError: with the nearest names.
    """
    for key in params:
        if key not in set(known):
            raise unknown(f"parameter of {attack}", key, known)


def short_of_steps(defaults: Mapping[str, Any], params: Mapping[str, Any], key: str = "steps") -> tuple[str, ...]:
    """The warning of an iterative attack that takes few steps, by the board or by default.

    Of 200 digits, PGD-AT: PGD with the default of Foolbox leaves 67.5% standing in Linf, 61.0% with 100 steps; 30.5%
    in L2, 7.5% with 200; that of torchattacks 62.5%, 61.0% with 40; 13.0% in L2, 4.5% with 100 [measured].
    """
    steps = defaults.get(key)
    if key not in params and isinstance(steps, int) and steps < ENOUGH_STEPS:
        return (f"its default of {steps} steps is short; give {key} = {ENOUGH_STEPS} or more",)
    return short_of(params, {key: ENOUGH_STEPS} if isinstance(steps, int) else {})


def short_of(params: Mapping[str, Any], enough: Mapping[str, int]) -> tuple[str, ...]:
    """The warnings of budgets that a board gives.

    Args:
        params: what the board gives.
        enough: by parameter, the value from which on it is no longer short.
    """
    given = {key: params[key] for key in enough if isinstance(params.get(key), int | float)}
    return tuple(
        f"{key} = {value} is short; give {enough[key]} or more" for key, value in given.items() if value < enough[key]
    )


def short_budgets(
    defaults: Mapping[str, Any], params: Mapping[str, Any], told: Iterable[str] = ()
) -> tuple[str, ...]:
    """The warnings of given budgets whose defaults are not short: less than a default is, up to what is enough for all.

    Args:
        defaults: of the constructor.
        params: what the board gives.
        told: parameters of which other warnings tell.
    """
    known = {key: most for key, most in _BUDGETS.items() if key not in told and isinstance(defaults.get(key), int)}
    return short_of(params, {key: min(defaults[key], most) for key, most in known.items()})
