"""How the attacks of a board look at its defenses, and where their images come from. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from bench.spec.cell import GIVEN, KNOWN, NULLS, TRANSFER, Cell, DefenseRef
from bench.spec.view import ViewSpec
from defenses.core.gradient_modes import parsed
from defenses.utils.errors import UserError, unknown

_ALWAYS = (*NULLS, "clean images", "uniform noise")
_RESERVED = (*_ALWAYS, *(f"{name}{KNOWN}" for name in _ALWAYS), "worst case")  # rows of every table
_BARE = "undefended"  # whose images are judged on defenses that have no bare classifier inside
_ATTACK = {"name": "autoattack:apgd-ce", "label": TRANSFER, "params": {"n_iter": 20, "n_restarts": 1}}


def view_for(defense: DefenseRef, view: ViewSpec, attack: str) -> ViewSpec:
    """The view without what makes no difference: to what does not look, a deterministic defense, a bare classifier.

    Args:
        defense: what is attacked.
        view: as the board says.
        attack: name of the attack.

    Raises:
        UserError: the seed is to be known where there is none, or to images that are made already.
    """
    if view.known:
        _check_known(defense, attack)
    if attack in NULLS or attack.startswith(GIVEN):
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
    """Refuse a surrogate that is no cheaper, where the steps of the purifier are known beforehand."""
    steps, number = str(defense.fingerprint.get("parameters", {}).get("steps")), parsed(view.gradient)[1]
    if view.mode == "surrogate" and number is not None and steps.isdigit() and number >= int(steps):
        raise UserError(f"{defense.label} has {steps} steps; its surrogate must have fewer, and not {number}")


def _check_known(defense: DefenseRef, attack: str) -> None:
    if not defense.stochastic:
        raise UserError(
            f'{defense.label} is deterministic, so it has no seed to know; write on = "stochastic" in the attack '
            f'"{attack}"'
        )
    if attack.startswith(GIVEN):
        raise UserError(f'the images of "{attack}" are made already; give seed = "known" to an attack that makes some')


def check_nulls(nulls: Sequence[str]) -> None:
    """Refuse a list of null attacks that leaves out what is on every board, or has a name that there is not.

    Raises:
        UserError: it does.
    """
    for name in nulls:
        if name not in (*NULLS, TRANSFER):
            raise unknown("null attack", name, (*NULLS, TRANSFER))
    if missing := [name for name in NULLS if name not in nulls]:
        raise UserError(f'nulls lacks "{missing[0]}", which is judged on every board; put it in')


def check_label(name: str, label: str) -> None:
    """Refuse an attack that is on every board, or is called like a row of every table.

    Raises:
        UserError: it is.
    """
    if name in NULLS:
        raise UserError(f'"{name}" is judged on every board; leave it out')
    if " ".join(label.lower().replace("-", " ").replace("_", " ").split()) in _RESERVED:
        raise UserError(f'the attack label "{label}" is taken by a row of every table; choose another')


def refuse_same(cell: Cell, other: Cell) -> NoReturn:
    """Tell of two rows that are one and the same.

    Raises:
        UserError: always.
    """
    if cell.defense.title != other.defense.title:
        raise UserError(f'the defense "{cell.defense.title}" is the same as "{other.defense.title}"; leave one out')
    where = f"on {cell.defense.label} ({cell.view_label})"
    raise UserError(f'the attack "{cell.attack.label}" is the same as "{other.attack.label}" {where}; leave one out')


def surrogate_of(entry: Mapping[str, Any], defenses: Sequence[DefenseRef]) -> DefenseRef:
    """The defense on which the images of an attack are made that is judged on the others: a black-box transfer.

    Args:
        entry: of a board, with a "source": the label of one of its defenses.
        defenses: of the board.

    Raises:
        UserError: there is none of that label, it is stochastic or has several trainings, or there are views too.
    """
    found = [d for d in defenses if d.label == entry["source"]]
    where = f'the source of "{entry.get("label", entry["name"])}"'
    if not found:
        raise unknown(f"defense that is {where},", entry["source"], {d.label for d in defenses})
    if found[0].stochastic or len(found) > 1:
        raise UserError(f'{where} is "{entry["source"]}"; it must be a deterministic defense of one training')
    if "views" in entry:
        raise UserError(f"{where} is attacked as it is; leave its views out")
    return found[0]


def transfer_to(defense: DefenseRef, defenses: Iterable[DefenseRef]) -> dict[str, Any] | None:
    """The null attack "transfer" on a defense: APGD on cross-entropy, 20 steps, on a bare classifier.

    That is the one inside the defense (blind gradients), else `undefended` of the same board, without parameters.

    Args:
        defense: on which the images are judged.
        defenses: of the board.

    Returns:
        Fields of an attack entry; None where neither is there, so that the null does not apply.
    """
    from defenses.utils.parameters import canonical

    entry = {**_ATTACK, "params": canonical(_ATTACK["params"]), "views": (ViewSpec(gradient="blind"),)}
    if "blind" in defense.gradients:
        return entry
    bare = next((d for d in defenses if d.name == _BARE and not d.given), None)
    if bare is None or bare == defense:
        return None
    return {**entry, "surrogate": bare}
