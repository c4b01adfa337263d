"""Turn the arguments of `benchmark` into a threat model, views, attacks and a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.board.attack_entry import AttackEntry, attack_entry
from bench.board.board import Board
from bench.board.evaluation_options import EvaluationOptions
from bench.board.indices import first_images
from bench.board.schema import check
from bench.spec.cell import DefenseRef
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.utils.errors import UserError
from defenses.utils.names import short_names


def threats_of(threat_model: str | ThreatModel, eps: Any) -> tuple[ThreatModel, ...]:
    """Return the threat models, one for each radius.

    Args:
        threat_model: norm, or a whole threat model.
        eps: radius, or a list of radii, with a norm only.

    Raises:
        UserError: unknown norm, bad radius, or a radius that is missing or given twice.
    """
    if isinstance(threat_model, ThreatModel):
        if eps is not None:
            raise UserError("eps is given twice; leave it out, the ThreatModel has one")
        return (threat_model,)
    if eps is None or (isinstance(eps, list | tuple) and not eps):
        raise UserError('eps is missing; give it as eps="8/255"')
    radii = eps.tolist() if hasattr(eps, "tolist") else eps
    return tuple(ThreatModel.of(threat_model, e) for e in (radii if isinstance(radii, list | tuple) else [radii]))


def views_of(views: Any) -> tuple[ViewSpec, ...]:
    """Return the views: one or several, each a `ViewSpec` or a view of a board; the deployed model's for none.

    Raises:
        UserError: unknown key, or a value of the wrong kind.
    """
    items = [views] if isinstance(views, ViewSpec | Mapping) else views
    if not isinstance(items, Sequence) or any(not isinstance(v, ViewSpec | Mapping) for v in items):
        raise UserError(f'views is {str(views)[:40]!r}; write {{"gradient": "exact"}}, a ViewSpec, or a list of these')
    return tuple(v if isinstance(v, ViewSpec) else ViewSpec(**check("view", v)) for v in items) or (ViewSpec(),)


def attack_entries(attacks: object, views: tuple[ViewSpec, ...]) -> tuple[AttackEntry, ...]:
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


def _entry(attack: object, views: tuple[ViewSpec, ...]) -> AttackEntry:
    if not isinstance(attack, str | Mapping):
        raise UserError(f'an attack is {attack!r}; write its name, or {{"name": "autoattack:apgd-ce", ...}}')
    params = {"name": attack} if isinstance(attack, str) else dict(attack)
    keys = {key: params.pop(key) for key in ("name", "label") if params.get(key) is not None}
    return replace(attack_entry(check("attack", {**keys, "params": params}), ()), views=views)


def board_of(
    defense: DefenseRef,
    attacks: tuple[AttackEntry, ...],
    threats: tuple[ThreatModel, ...],
    dataset: str,
    n_examples: int | None,
    options: EvaluationOptions,
) -> Board:
    """Return the board of one defense; `benchmark` has the arguments.

    Raises:
        UserError: a number of the wrong kind or out of range, or a label twice.
    """
    return Board(
        name=defense.label,
        title=defense.label,
        dataset=dataset,
        threats=threats,
        defenses=(defense,),
        attacks=attacks,
        split=options.split,
        indices=first_images(n_examples),
        block=options.batch_size,
        verdict=options.verdict,
        seed=options.seed,
        threads=torch.get_num_threads(),
        data_root=options.data_root,
        compute=options.compute,
    )
