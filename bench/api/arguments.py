"""Turn the arguments of `benchmark` into a threat model, views, attacks and a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from bench.board.attack_entry import AttackEntry, attack_entry
from bench.board.board import Board
from bench.board.indices import first_images
from bench.board.schema import check
from bench.spec.cell import DefenseRef, VerdictSpec
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.utils.errors import UserError, check_whole
from defenses.utils.names import short_names


def plain_int(value: Any) -> Any:
    """Return a whole number of any type, as NumPy's, as Python's; anything else as it is."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def check_options(*, batch_size: object, name: str | None, split: str, stochastic: object) -> None:
    """Refuse bad values of some arguments of `benchmark`.

    Raises:
        UserError: a value of the wrong kind or out of range.
    """
    check_whole(1, batch_size=batch_size)
    if name is not None:
        check("defense", {"label": name}, partial=True)
    check("board", {"split": split}, partial=True)
    if stochastic not in (None, True, False):
        raise UserError(f"stochastic is {stochastic!r}; it must be True, False or None (which tries)")


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
    return tuple(ThreatModel(threat_model, e) for e in (radii if isinstance(radii, list | tuple) else [radii]))  # type: ignore[arg-type]


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


def board_of(
    defense: DefenseRef,
    attacks: tuple[AttackEntry, ...],
    threats: tuple[ThreatModel, ...],
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
        threats=threats,
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
