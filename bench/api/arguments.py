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

if TYPE_CHECKING:
    from torch import nn

    from defenses.core.defense import Defense


def _check_batch_size(batch_size: object) -> None:
    """A board calls it by another name, so its own check would not name it."""
    if type(batch_size) is not int or batch_size < 1:
        raise UserError(f"batch_size is {batch_size!r}; it must be a whole number, at least 1")


def _threat(threat_model: str | ThreatModel, eps: str | float | None) -> ThreatModel:
    if isinstance(threat_model, ThreatModel):
        if eps is not None:
            raise UserError("eps is given twice; leave it out, the ThreatModel has one")
        return threat_model
    if eps is None:
        raise UserError('eps is missing; give it as eps="8/255"')
    return ThreatModel(threat_model, eps)  # type: ignore[arg-type]


def _views(views: Any) -> tuple[ViewSpec, ...]:
    given = [views] if isinstance(views, ViewSpec | Mapping) else views
    if not isinstance(given, Sequence) or any(not isinstance(v, ViewSpec | Mapping) for v in given):
        raise UserError(f'views is {str(views)[:40]!r}; write {{"gradient": "exact"}}, a ViewSpec, or a list of these')
    return tuple(v if isinstance(v, ViewSpec) else ViewSpec(**check("view", v)) for v in given) or (ViewSpec(),)


def _entries(attacks: Any, views: tuple[ViewSpec, ...]) -> tuple[AttackEntry, ...]:
    """The attacks, those of one name labelled by their parameters too."""
    given = [attacks] if isinstance(attacks, str | Mapping) else attacks
    if not isinstance(given, Sequence):
        raise UserError(f'attacks is {attacks!r}; write a name as "autoattack:standard", or a list of these')
    entries = [_entry(attack, views) for attack in given]
    labels = [e.label for e in entries]
    return tuple(
        replace(e, label=f"{e.label} ({', '.join(f'{k}={v}' for k, v in e.params.items())})")
        if labels.count(e.label) > 1 and e.label == e.name and e.params
        else e
        for e in entries
    )


def _entry(attack: Any, views: tuple[ViewSpec, ...]) -> AttackEntry:
    if not isinstance(attack, str | Mapping):
        raise UserError(f'an attack is {attack!r}; write its name, or {{"name": "autoattack:apgd-ce", ...}}')
    given = {"name": attack} if isinstance(attack, str) else dict(attack)
    own = {key: given.pop(key) for key in ("name", "label") if given.get(key) is not None}
    return replace(attack_entry(check("attack", {**own, "params": given}), ()), views=views)


def _loaded(model: nn.Module | str, dataset: str, threat: ThreatModel, root: Path | None) -> nn.Module:
    from torch import nn

    from defenses.utils.names import is_zoo
    from defenses.zoo.registry import load_model

    if not isinstance(model, str):
        if not isinstance(model, nn.Module):
            raise UserError(f"the model is {str(model)[:40]!r}; give a torch.nn.Module, or a name for load_model")
        return model
    params: dict[str, Any] = {"threat_model": threat.norm} if is_zoo(model) else {}
    return load_model(model, dataset, data_root=root, **params)


def _defense(
    loaded: nn.Module, dataset: str, split: str, stochastic: bool | None, name: str | None, root: Path | None
) -> Defense:
    """The model as a defense."""
    from torch import nn

    from bench.evaluation.model_checks import refuse_train_mode
    from defenses.core.defense import Defense, Foreign
    from defenses.utils.identity import check_built

    if isinstance(loaded, nn.Module):
        check_built(loaded)
    if isinstance(loaded, Foreign):
        loaded = loaded.module
    if isinstance(loaded, Defense):
        return loaded
    refuse_train_mode(loaded, name or type(loaded).__name__)
    return Foreign(loaded, stochastic=_is_random(loaded, dataset, split, root) if stochastic is None else stochastic)


def _is_random(model: nn.Module, dataset: str, split: str, root: Path | None) -> bool:
    from bench.evaluation.model_checks import looks_random
    from defenses.data.dataset import load_dataset

    try:
        return looks_random(model, load_dataset(dataset, split, root=root).x[:8])
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False  # the model check will say what is wrong


def _threads() -> int:
    import torch

    return torch.get_num_threads()
