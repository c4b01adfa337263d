"""Defenses, filters and purifiers built from user-defined classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

from torch import nn

from defenses.core.defense import Defense, UserModule
from defenses.core.purifier import Purifier, is_purifier
from defenses.utils.errors import UserError
from defenses.utils.identity import check_built
from defenses.utils.plugins import forbid_exit, line_of, load_object, takes_seed
from defenses.zoo.assembly import Parts, composed
from defenses.zoo.cards import refuse_around
from defenses.zoo.composition import KEYS


def load_plugin(
    name: str,
    params: Mapping[str, object],
    parts: Parts,
    *,
    stochastic: bool = False,
) -> Defense:
    """Return the defense of a user-defined class, function or instance; purifiers need a classifier.

    Args:
        name: "module:Class" or "file.py:Class".
        params: of the class or function; for a purifier also those of a composition.
        parts: builders of a composition's parts; the class gets their training seed.
        stochastic: True if the outputs of a plain module are random.

    Raises:
        UserError: the target cannot be imported or built, or is no module.
    """
    target = load_object(name)
    with _building(name):
        if is_purifier(target):
            return _composed(name, target, params, parts)
        if not _takes(target, params):
            refuse_around(name, params)
        if parts.training_seed is not None:
            if isinstance(target, nn.Module):
                raise UserError(f'"{name}" is made already, so it takes no training seed; name its class')
            params = {**params, "training_seed": parts.training_seed}
        model = target if isinstance(target, nn.Module) else target(**params)
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        remedy = "return its .module()" if kind == "ExportedProgram" else "give a module or what makes one"
        raise UserError(f'"{name}" is no torch.nn.Module but {kind}; {remedy}')
    check_built(model)
    if isinstance(model, Purifier):
        raise UserError(f'"{name}" makes a purifier; name its class, or return Purified(purifier, classifier)')
    return model if isinstance(model, Defense) else UserModule(model, stochastic=stochastic)


@contextmanager
def _building(name: str) -> Iterator[None]:
    """Turn errors and exits of user-defined code into one clear line."""
    try:
        with forbid_exit():
            yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f'"{name}" cannot be built: {line_of(error)}') from error


def _composed(name: str, target: object, params: Mapping[str, object], parts: Parts) -> Defense:
    """Return the composition of a purifier, a class or an instance, that `params` describe."""
    own = {"autoencoder"} & _names(target)  # of classes that are older than the key of a composition
    around = {key: value for key, value in params.items() if key in KEYS and key not in own}
    arguments = {key: value for key, value in params.items() if key not in around}
    defense = composed(name, _instance(name, target, arguments, parts.training_seed), around, parts)
    vars(defense)["user_parts"] = parts.user_parts
    return defense


def load_filter(name: str, params: Mapping[str, object], training_seed: int | None = None) -> Purifier:
    """Return the filter of a user-defined purifier: a class, a function that makes one, or an instance.

    Args:
        name: "module:Class" or "file.py:Class".
        params: of the class or function.
        training_seed: an argument of classes that take it.

    Raises:
        UserError: the target cannot be imported or built, or is no purifier.
    """
    target = load_object(name)
    with _building(name):
        purifier = _instance(name, target, params, training_seed)
    if not isinstance(purifier, Purifier):
        raise UserError(f'filter "{name}" is a {type(purifier).__name__}; let it be a defenses.Purifier')
    check_built(purifier)
    return purifier.eval()


def _instance(name: str, target: Any, params: Mapping[str, object], training_seed: int | None) -> object:
    """Return an instance itself, or what a class or function makes of its parameters."""
    if isinstance(target, nn.Module):
        if params:
            raise UserError(f'"{name}" is made already, so it takes no "{next(iter(params))}"; name its class')
        return target
    seeded = training_seed is not None and takes_seed(target)
    return target(**params, **({"training_seed": training_seed} if seeded else {}))


def _names(target: Any) -> set[str]:
    """Return the names of the parameters of a class or function."""
    try:
        return {*signature(target).parameters}
    except (TypeError, ValueError):
        return set()


def _takes(target: Any, params: Mapping[str, object]) -> bool:
    """Return True if a class or function can be called with these parameters, by its signature."""
    try:
        signature(target).bind(**params)
    except (TypeError, ValueError):
        return False
    return True
