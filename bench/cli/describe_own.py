"""Descriptions of a user's own code: file.py:Name or package.module:Name."""

from __future__ import annotations

import ast
import sys
from contextlib import redirect_stdout
from inspect import Parameter, isclass, signature
from pathlib import Path
from typing import Any

from bench.attacks import user_function
from bench.cli.describe import of_dataset, parameter_rows
from defenses.utils.errors import UserError, unknown
from defenses.utils.introspection import Parameters, function_parameters, parse
from defenses.utils.json_values import Json
from defenses.utils.plugins import load_object, source_of

_ATTACK_ARGUMENTS = 3  # (view, x, y)


def own(name: str, root: Path | None = None) -> Json | None:
    """Return the description of a class or function; None where there is no such module.

    What it is follows from its arguments: an attack takes (view, x, y), a data set (split), a defense neither.

    Args:
        name: "file.py:Name" or "package.module:Name".
        root: folder of data sets.

    Raises:
        UserError: no such file, no such name in it, or it cannot be imported.
    """
    where, _, attribute = name.rpartition(":")
    source = source_of(where) if where else None
    if source is None:
        return None
    if not source.file.is_file():
        raise UserError(f"there is no file {where}")
    tree = parse(source.file, source.file.stat().st_mtime_ns)
    nodes = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    node = nodes.get(attribute)
    if isinstance(node, ast.FunctionDef):
        needed = [n for n in function_parameters(node).required if n not in {a.arg for a in node.args.kwonlyargs}]
        if len(needed) >= _ATTACK_ARGUMENTS:
            return _attack(name, ast.get_docstring(node))
        if len(needed) == 1:
            return {**of_dataset(name, root), "about": _first_line(ast.get_docstring(node))}
    elif node is None and not _assigns(tree, attribute):
        raise unknown(f"name in {where}", attribute, nodes)
    return _defense(name)


def _assigns(tree: ast.Module, attribute: str) -> bool:
    """Return True if a file gives a value to a name, or imports it."""
    assigned = {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    imports = [a for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names]
    return attribute in assigned | {(a.asname or a.name) for a in imports}


def _first_line(doc: str | None) -> str:
    return (doc or "").partition("\n")[0]


def _attack(name: str, doc: str | None) -> dict[str, object]:
    about, parameters = _first_line(doc), user_function.parameters(name)
    return {"is": "attack", "name": name, "about": about, "parameters": parameter_rows(parameters)}


def _defense(name: str) -> dict[str, object]:
    """Return the description of a class, function or instance that makes a defense; its code is imported."""
    from bench.evaluation.isolation import preserve_global_state
    from defenses.core.defense import Defense
    from defenses.core.purifier import is_purifier

    with preserve_global_state(), redirect_stdout(sys.stderr):  # what the user's code prints is no part of the page
        target = load_object(name)
        parameters = _signature(name, target)
        kind, modes = "plain torch module (stochastic = true on a board if it is random)", ["exact"]
        if is_purifier(target):
            kind, modes = "purifier, before the classifier that params name", _modes(name, target, parameters)
        elif isinstance(target, Defense) or (isclass(target) and issubclass(target, Defense)):
            kind, modes = "defense", list(target.gradients)
        elif callable(target) and not isclass(target) and not hasattr(target, "state_dict"):
            kind, modes = "function that makes a defense", []
    return {
        "is": "defense",
        "name": name,
        "about": _first_line(target.__doc__),
        "kind": kind,
        "gradient modes": modes or "told by what it makes",
        "parameters": parameter_rows(parameters),
    }


def _signature(name: str, target: Any) -> Parameters:
    """Return the parameters of a class or function; an instance has none."""
    if hasattr(target, "state_dict") and not isclass(target):
        return Parameters()
    try:
        takes = signature(target).parameters.values()
    except (TypeError, ValueError):
        text = f'"{name}" is no class, function or module but {type(target).__name__}; name what makes a defense'
        raise UserError(text) from None
    arguments = [p for p in takes if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    defaults = {p.name: p.default for p in arguments if p.default is not p.empty}
    required = tuple(p.name for p in arguments if p.default is p.empty)
    return Parameters(tuple(p.name for p in arguments), required, defaults=defaults)


def _modes(name: str, target: object, parameters: Parameters) -> list[str]:
    """Return the gradient modes of a purifier before a classifier; empty where it cannot be made without parameters."""
    from defenses.core.gradient_modes import modes_of
    from defenses.zoo.user_models import load_filter

    if isclass(target) and parameters.required:
        return []
    return list(modes_of(load_filter(name, {})))
