"""Turn the arguments of `benchmark` into a threat model, views, attacks, a defense and a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.board.attack_entry import AttackEntry, attack_entry
from bench.board.board import Board
from bench.board.indices import first_images
from bench.board.schema import check
from bench.evaluation.model_checks import has_random_outputs, refuse_train_mode
from bench.spec.cell import DefenseRef, VerdictSpec
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.core.defense import Defense, UserModule
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError
from defenses.utils.identity import check_built
from defenses.utils.names import is_zoo, short_names
from defenses.zoo.registry import load_model


def check_batch_size(batch_size: object) -> None:
    """Refuse a bad batch size; a board would name it "block".

    Raises:
        UserError: not a whole number, or less than 1.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise UserError(f"batch_size is {batch_size!r}; it must be a whole number, at least 1")


def plain_int(value: Any) -> Any:
    """Return a whole number of any type, as NumPy's, as Python's; anything else as it is."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def classes_of(model: nn.Module, dataset: Sequence[Any]) -> int | None:
    """Return the number of logits of a model for the first image of a pair (x, y); None if it takes no such image."""
    try:
        x = torch.as_tensor(dataset[0][:1], dtype=torch.float32)
        with torch.no_grad():
            return int(model(x.to(next(model.parameters(), x).device)).shape[1])
    except Exception:  # the checks of the data and the model name the problem
        return None


def check_options(*, batch_size: object, name: str | None, split: str, stochastic: object) -> None:
    """Refuse bad values of some arguments of `benchmark`.

    Raises:
        UserError: a value of the wrong kind or out of range.
    """
    check_batch_size(batch_size)
    if name is not None:
        check("defense", {"label": name})
    check("board", {"split": split})
    if stochastic not in (None, True, False):
        raise UserError(f"stochastic is {stochastic!r}; it must be True, False or None (which tries)")


def threat_of(threat_model: str | ThreatModel, eps: str | float | None) -> ThreatModel:
    """Return the threat model.

    Args:
        threat_model: norm, or a whole threat model.
        eps: radius, with a norm only.

    Raises:
        UserError: unknown norm, bad radius, or a radius that is missing or given twice.
    """
    if isinstance(threat_model, ThreatModel):
        if eps is not None:
            raise UserError("eps is given twice; leave it out, the ThreatModel has one")
        return threat_model
    if eps is None:
        raise UserError('eps is missing; give it as eps="8/255"')
    return ThreatModel(threat_model, eps)  # type: ignore[arg-type]


def views_of(views: Any) -> tuple[ViewSpec, ...]:
    """Return the views: one or several, each a `ViewSpec` or a view of a board; the deployed model's for none.

    Raises:
        UserError: unknown key, or a value of the wrong kind.
    """
    items = [views] if isinstance(views, ViewSpec | Mapping) else views
    if not isinstance(items, Sequence) or any(not isinstance(v, ViewSpec | Mapping) for v in items):
        raise UserError(f'views is {str(views)[:40]!r}; write {{"gradient": "exact"}}, a ViewSpec, or a list of these')
    return tuple(v if isinstance(v, ViewSpec) else ViewSpec(**check("view", v)) for v in items) or (ViewSpec(),)


def attack_entries(attacks: Any, views: tuple[ViewSpec, ...]) -> tuple[AttackEntry, ...]:
    """Return the attacks on some views; those of one name are labelled by their parameters too.

    Args:
        attacks: one or several, each a name or {"name": ..., "label": ..., parameters}.
        views: views that they attack.

    Raises:
        UserError: unknown attack or parameter, or a value of the wrong kind.
    """
    items = [attacks] if isinstance(attacks, str | Mapping) else attacks
    if not isinstance(items, Sequence):
        raise UserError(f'attacks is {attacks!r}; write a name as "autoattack:standard", or a list of these')
    entries = [_entry(attack, views) for attack in items]
    labels = [e.label for e in entries]
    return tuple(
        replace(e, label=f"{e.label} ({', '.join(f'{k}={v}' for k, v in e.params.items())})")
        if labels.count(e.label) > 1 and e.label == short_names([e.name])[0] and e.params
        else e
        for e in entries
    )


def _entry(attack: Any, views: tuple[ViewSpec, ...]) -> AttackEntry:
    if not isinstance(attack, str | Mapping):
        raise UserError(f'an attack is {attack!r}; write its name, or {{"name": "autoattack:apgd-ce", ...}}')
    params = {"name": attack} if isinstance(attack, str) else dict(attack)
    keys = {key: params.pop(key) for key in ("name", "label") if params.get(key) is not None}
    return replace(attack_entry(check("attack", {**keys, "params": params}), ()), views=views)


def load(model: nn.Module | str, dataset: str, threat: ThreatModel, data_root: Path | None) -> nn.Module:
    """Return a module; a name is loaded by `load_model`.

    Args:
        model: a module, or the name of a model.
        dataset: name or path of the data set.
        threat: threat model, which selects the model of RobustBench's zoo.
        data_root: where data sets lie.

    Raises:
        UserError: neither a module nor a name, or a model that cannot be loaded.
    """
    if not isinstance(model, str):
        if not isinstance(model, nn.Module):
            raise UserError(f"the model is {str(model)[:40]!r}; give a torch.nn.Module, or a name for load_model")
        return model
    params: dict[str, Any] = {"threat_model": threat.norm} if is_zoo(model) else {}
    return load_model(model, dataset, data_root=data_root, **params)


def as_defense(
    module: nn.Module, dataset: str, split: str, stochastic: bool | None, name: str | None, data_root: Path | None
) -> Defense:
    """Return a module as a defense.

    Args:
        module: a `Defense`, or a module from images to logits.
        dataset: name or path of the data set.
        split: split on which the module is tried.
        stochastic: True if the outputs of a module are random; None: try.
        name: name of the model, for messages.
        data_root: where data sets lie.

    Raises:
        UserError: a module in training mode, or without initialised parameters.
    """
    check_built(module)
    if isinstance(module, UserModule):
        module = module.module
    if isinstance(module, Defense):
        return module
    refuse_train_mode(module, name or type(module).__name__)
    random = _is_random(module, dataset, split, data_root) if stochastic is None else stochastic
    return UserModule(module, stochastic=random)


def _is_random(module: nn.Module, dataset: str, split: str, data_root: Path | None) -> bool:
    try:
        return has_random_outputs(module, load_dataset(dataset, split, root=data_root).x[:8])
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False  # the model check will name the problem


def board_of(
    defense: DefenseRef,
    attacks: tuple[AttackEntry, ...],
    threat: ThreatModel,
    dataset: str,
    *,
    split: str,
    n_examples: int | None,
    batch_size: int,
    verdict: VerdictSpec,
    seed: int,
    data_root: Path | None,
) -> Board:
    """Return the board of one defense; `benchmark` has the arguments.

    Raises:
        UserError: a number of the wrong kind or out of range, or a label twice.
    """
    return Board(
        name=defense.label,
        title=defense.label,
        dataset=dataset,
        threats=(threat,),
        defenses=(defense,),
        attacks=attacks,
        split=split,
        indices=first_images(n_examples),
        block=batch_size,
        verdict=verdict,
        seed=seed,
        threads=torch.get_num_threads(),
        data_root=data_root,
    )
