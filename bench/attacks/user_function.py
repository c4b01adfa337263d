"""User-defined attacks: functions of a module or of a file, with the signature of `Attack.run`."""

from __future__ import annotations

import ast
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.attacks.base import Attack
from bench.attacks.budgets import check_params
from defenses.utils.errors import UserError, unknown
from defenses.utils.introspection import Parameters, function_parameters, parse
from defenses.utils.plugins import code_hash, load_object, source_of

if TYPE_CHECKING:
    from torch import Tensor

_OFFERED = ("threat", "target", "seed", "num_classes", "indices")


def find(name: str, params: dict[str, object]) -> Attack | None:
    """Return the attack of a function; None if there is no such file or package.

    The function takes `(view, x, y)` and by name those of threat, target, seed, num_classes and indices that it uses;
    its other arguments are its parameters. `function.minimisation = True` in the file declares that it has no eps.

    Args:
        name: "package.module:function" or "path/file.py:function".
        params: of the board.

    Raises:
        UserError: see `bench.attacks.registry.find_attack`.
    """
    where, _, function = name.rpartition(":")
    path = _file(where)
    if path is None:
        return None
    tree = parse(path, path.stat().st_mtime_ns)
    takes = _arguments(path, tree, function)
    parameters = takes.without(*_OFFERED)
    if not takes.open:
        check_params(name, params, parameters.names)
    missing = [n for n in parameters.required if n not in params]
    if missing:
        raise UserError(f'{name} needs the parameter "{missing[0]}"; give it in the board')
    return Attack(
        name=name,
        run=partial(_run, str(path) if where.endswith(".py") else where, function, takes),
        minimisation=_is_minimisation(tree, function),
        version=f"{path.name} {code_hash(f'{path}:{function}')[:16]}",
    )


def parameters(name: str) -> Parameters | None:
    """Return the parameters of a function; None if there is no such file or package.

    Args:
        name: see `find`.

    Raises:
        UserError: the file has no such function.
    """
    where, _, function = name.rpartition(":")
    if (path := _file(where)) is None:
        return None
    return _arguments(path, parse(path, path.stat().st_mtime_ns), function).without(*_OFFERED)


def _arguments(path: Path, tree: ast.Module, function: str) -> Parameters:
    """Return the arguments of a function of a file after (view, x, y)."""
    nodes = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    if function not in nodes:
        raise unknown(f"function in {path}", function, nodes)
    return function_parameters(nodes[function], skip=3)


def _file(where: str) -> Path | None:
    """Return the source file of a module or path; None if there is none."""
    if where.endswith(".py"):
        path = Path(where).expanduser()
        if not path.is_file():
            raise UserError(f"there is no file {path}; an attack of your own is path/file.py:function")
        return path
    source = source_of(where)
    return source.file if source is not None and source.file.suffix == ".py" else None


def _is_minimisation(tree: ast.Module, function: str) -> bool:
    """Return True if a file sets `function.minimisation = True`."""
    return any(
        isinstance(n, ast.Assign)
        and any(ast.unparse(t) == f"{function}.minimisation" for t in n.targets)
        and isinstance(n.value, ast.Constant)
        and n.value.value is True
        for n in tree.body
    )


def _run(where: str, function: str, takes: Parameters, view: Any, x: Tensor, y: Tensor, **arguments: Any) -> Tensor:
    import torch

    from defenses.utils.isolation import seeded_globals

    try:
        attack = load_object(f"{where}:{function}")
    except UserError as error:  # fails the cells of this attack alone
        raise ImportError(str(error)) from error
    if arguments.get("indices") is None:
        arguments["indices"] = torch.arange(len(x))
    passed = {k: v for k, v in arguments.items() if takes.open or k in takes.names or k not in _OFFERED}
    with seeded_globals(arguments["seed"], x.device):
        x_adv: Tensor = attack(view, x.clone(), y.clone(), **passed)
    return x_adv.detach().clone()
