"""Turn the arguments of `benchmark` into a threat model, views, attacks and a defense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board.attack_entry import AttackEntry, attack_entry
from bench.board.schema import check
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.utils.errors import UserError
from defenses.utils.names import is_zoo

if TYPE_CHECKING:
    from torch import nn

    from defenses.core.defense import Defense


def check_batch_size(batch_size: object) -> None:
    """Refuse a batch size that is no whole number, at least 1, by the argument's own name: a board says block."""
    if type(batch_size) is not int or batch_size < 1:
        raise UserError(f"batch_size is {batch_size!r}; it must be a whole number, at least 1")


def threat_of(threat_model: str | ThreatModel, eps: str | float | None) -> ThreatModel:
    """Return the threat model of a norm and a radius; a whole one stays as it is.

    Raises:
        UserError: the radius is missing or given twice, or no such norm or radius.
    """
    if isinstance(threat_model, ThreatModel):
        if eps is not None:
            raise UserError("eps is given twice; leave it out, the ThreatModel has one")
        return threat_model
    if eps is None:
        raise UserError('eps is missing; give it as eps="8/255"')
    return ThreatModel(threat_model, eps)  # type: ignore[arg-type]


def views_of(views: Any) -> tuple[ViewSpec, ...]:
    """Return views from one or several specifications or mappings; none: the view of the deployed model.

    Raises:
        UserError: something else.
    """
    listed = [views] if isinstance(views, ViewSpec | Mapping) else views
    if not isinstance(listed, Sequence) or any(not isinstance(v, ViewSpec | Mapping) for v in listed):
        raise UserError(f'views is {str(views)[:40]!r}; write {{"gradient": "exact"}}, a ViewSpec, or a list of these')
    return tuple(v if isinstance(v, ViewSpec) else ViewSpec(**check("view", v)) for v in listed) or (ViewSpec(),)


def entries_of(attacks: Any, views: tuple[ViewSpec, ...]) -> tuple[AttackEntry, ...]:
    """Return the attacks of a board; labels of attacks that share a name hold their parameters.

    Args:
        attacks: one or several names or mappings with a name, a label and parameters.
        views: of every attack.

    Raises:
        UserError: something else, or an unknown attack or parameter.
    """
    listed = [attacks] if isinstance(attacks, str | Mapping) else attacks
    if not isinstance(listed, Sequence):
        raise UserError(f'attacks is {attacks!r}; write a name as "autoattack:standard", or a list of these')
    entries = [_entry(attack, views) for attack in listed]
    labels = [e.label for e in entries]
    return tuple(
        replace(e, label=f"{e.label} ({', '.join(f'{k}={v}' for k, v in e.params.items())})")
        if labels.count(e.label) > 1 and e.label == e.name and e.params
        else e
        for e in entries
    )


def _entry(attack: Any, views: tuple[ViewSpec, ...]) -> AttackEntry:
    """Return an attack of a board from its name or mapping."""
    if not isinstance(attack, str | Mapping):
        raise UserError(f'an attack is {attack!r}; write its name, or {{"name": "autoattack:apgd-ce", ...}}')
    params = {"name": attack} if isinstance(attack, str) else dict(attack)
    names = {key: params.pop(key) for key in ("name", "label") if params.get(key) is not None}
    return replace(attack_entry(check("attack", {**names, "params": params}), ()), views=views)


def defense_of(
    model: nn.Module | str,
    dataset: str,
    threat: ThreatModel,
    *,
    split: str,
    stochastic: bool | None,
    name: str | None,
    root: Path | None,
) -> Defense:
    """Return a model as a defense; a plain module is wrapped.

    Args:
        model: a module, or a name for `load_model`.
        dataset: name of the data set.
        threat: its norm chooses a model of RobustBench's zoo.
        split: of the data set.
        stochastic: whether a plain module is random; None: it is tried.
        name: of the model, for messages.
        root: where data sets lie.

    Raises:
        UserError: no module, unknown name, or a module in training mode.
    """
    from torch import nn

    from bench.evaluation.model_checks import refuse_train_mode
    from defenses.core.defense import Defense, Foreign
    from defenses.utils.identity import check_built
    from defenses.zoo.registry import load_model

    if isinstance(model, str):
        params: dict[str, Any] = {"threat_model": threat.norm} if is_zoo(model) else {}
        model = load_model(model, dataset, data_root=root, **params)
    if not isinstance(model, nn.Module):
        raise UserError(f"the model is {str(model)[:40]!r}; give a torch.nn.Module, or a name for load_model")
    check_built(model)
    if isinstance(model, Foreign):
        model = model.module
    if isinstance(model, Defense):
        return model
    refuse_train_mode(model, name or type(model).__name__)
    return Foreign(model, stochastic=_is_random(model, dataset, split, root) if stochastic is None else stochastic)


def _is_random(model: nn.Module, dataset: str, split: str, root: Path | None) -> bool:
    """Return True if a module gives different logits under different states of the global generators."""
    from bench.evaluation.model_checks import looks_random
    from defenses.data.dataset import load_dataset

    try:
        return looks_random(model, load_dataset(dataset, split, root=root).x[:8])
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False  # the model check will say what is wrong
