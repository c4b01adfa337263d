"""Views and transfer sources of a board's attacks. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NoReturn

from bench.spec.cell import KNOWN, NULLS, TRANSFER, AttackRef, Cell, DefenseRef
from bench.spec.view import ViewSpec
from defenses.core.gradient_modes import parsed
from defenses.utils.errors import UserError, unknown
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import short_names
from defenses.utils.parameters import canonical

_ALWAYS = (*NULLS, "clean images", "uniform noise")
_RESERVED = (*_ALWAYS, *(f"{name}{KNOWN}" for name in _ALWAYS), "worst case")  # rows of every table
_BARE = "undefended"  # the surrogate for defenses without a bare classifier inside
ATTACK = {"name": "autoattack:apgd-ce", "label": TRANSFER, "params": {"n_iter": 20, "n_restarts": 1}}


def view_for(defense: DefenseRef, view: ViewSpec, attack: AttackRef) -> ViewSpec:
    """Return a view without the settings that do not matter to an attack and a defense.

    Args:
        defense: the attacked defense.
        view: the view of the board.
        attack: the attack.

    Raises:
        UserError: a known seed of a deterministic defense or of precomputed images, or a surrogate that is no cheaper.
    """
    if view.known:
        _check_known(defense, attack)
    if not attack.queries_model:
        return ViewSpec(gradient=defense.gradients[0], seed=view.seed)
    if not defense.stochastic:
        return ViewSpec(gradient=view.gradient if view.mode in defense.gradients else defense.gradients[0])
    if view.gradient == "blind":
        return ViewSpec(gradient="blind")
    _check_surrogate(defense, view)
    if not defense.has_runs:
        return dataclasses.replace(view, runs=None)
    return view


def _check_surrogate(defense: DefenseRef, view: ViewSpec) -> None:
    """Refuse a surrogate with as many steps as the purifier, or more, where the card tells its steps."""
    steps, number = str(defense.fingerprint.get("parameters", {}).get("steps")), parsed(view.gradient)[1]
    if view.mode == "surrogate" and number is not None and steps.isdigit() and number >= int(steps):
        raise UserError(f"{defense.label} has {steps} steps; its surrogate must have fewer, and not {number}")


def _check_known(defense: DefenseRef, attack: AttackRef) -> None:
    if not defense.stochastic:
        raise UserError(
            f'{defense.label} is deterministic, so it has no seed to know; write on = "stochastic" in the attack '
            f'"{attack.name}"'
        )
    if attack.is_precomputed:
        raise UserError(
            f'the images of "{attack.name}" are made already; give seed = "known" to an attack that makes some'
        )


def check_nulls(nulls: Sequence[str]) -> None:
    """Refuse a list of null attacks with an unknown name, or without one that is on every board.

    Raises:
        UserError: such a list.
    """
    for name in nulls:
        if name not in (*NULLS, TRANSFER):
            raise unknown("null attack", name, (*NULLS, TRANSFER))
    if missing := [name for name in NULLS if name not in nulls]:
        raise UserError(f'nulls lacks "{missing[0]}", which is judged on every board; put it in')


def check_label(name: str, label: str) -> None:
    """Refuse an attack that is on every board, or has the label of a row of every table.

    Args:
        name: name of the attack.
        label: its label.

    Raises:
        UserError: such an attack.
    """
    if name in NULLS:
        raise UserError(f'"{name}" is judged on every board; leave it out')
    if " ".join(label.lower().replace("-", " ").replace("_", " ").split()) in _RESERVED:
        raise UserError(f'the attack label "{label}" is taken by a row of every table; choose another')


def refuse_same(cell: Cell, other: Cell) -> NoReturn:
    """Raise the error for two cells with the same key.

    Raises:
        UserError: always.
    """
    if cell.defense.title != other.defense.title:
        raise UserError(f'the defense "{cell.defense.title}" is the same as "{other.defense.title}"; leave one out')
    where = f"on {cell.defense.label} ({cell.view_label})"
    raise UserError(f'the attack "{cell.attack.label}" is the same as "{other.attack.label}" {where}; leave one out')


def surrogate_of(entry: JsonView, defenses: Sequence[DefenseRef]) -> tuple[DefenseRef, ViewSpec]:
    """Return the surrogate of a transfer, the defense on which its images are made, and the view of it.

    Args:
        entry: attack entry with the key "source", the label of a defense.
        defenses: defenses of the board.

    Raises:
        UserError: unknown label, a defense of several trainings, or views: of a deterministic one any, of a random one
            several or one with the seed known.
    """
    sources = [d for d in defenses if d.is_called(entry["source"])]
    where = f'the source of "{entry.get("label", *short_names([entry["name"]]))}"'
    if not sources:
        raise unknown(f"defense that is {where},", entry["source"], {d.label for d in defenses})
    if len(sources) > 1:
        raise UserError(f'{where} is "{entry["source"]}"; it must be a defense of one training')
    if "views" in entry and not sources[0].stochastic:
        raise UserError(f"{where} is attacked as it is; leave its views out")
    views = [ViewSpec(**view) for view in entry.get("views", [{}])]
    if len(views) > 1 or views[0].known:
        raise UserError(f"{where} is random; give one view of it, without seed")
    return sources[0], views[0]


def transfer_to(defense: DefenseRef, defenses: Iterable[DefenseRef]) -> Json | None:
    """Return the null attack "transfer" on a defense: APGD on cross-entropy, 20 steps, on a bare classifier.

    The classifier is the one inside the defense (blind gradients), else `undefended` of the board, without parameters.

    Args:
        defense: the defense on which the images are judged.
        defenses: defenses of the board.

    Returns:
        Fields of an attack entry; None where there is neither classifier.
    """
    entry = {**ATTACK, "params": canonical(ATTACK["params"]), "views": (ViewSpec(gradient="blind"),)}
    if "blind" in defense.gradients:
        return entry
    bare = next((d for d in defenses if d.name == _BARE and not d.params), None)
    if bare is None or bare == defense:
        return None
    return {**entry, "surrogate": bare}
