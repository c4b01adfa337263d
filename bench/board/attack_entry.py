"""Attacks of a board as its file names them. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.attacks.registry import find_attack
from bench.board.schema import check
from bench.board.views import surrogate_of
from bench.spec.cell import DefenseRef
from bench.spec.view import ViewSpec
from defenses.utils.errors import UserError, unknown
from defenses.utils.parameters import canonical


@dataclass(frozen=True)
class AttackEntry:
    """An attack of a board: on which views, against which defenses (empty: all), made on which surrogate, if any."""

    name: str
    label: str
    params: Mapping[str, Any] = field(default_factory=dict)
    views: tuple[ViewSpec, ...] = (ViewSpec(),)
    on: tuple[str, ...] = ()
    surrogate: DefenseRef | None = None

    def meets(self, defense: DefenseRef) -> bool:
        """Whether the attack is against a defense, which is never its own surrogate."""
        if self.surrogate is not None and self.surrogate.title == defense.title:
            return False
        named = {defense.label, "stochastic" if defense.stochastic else "deterministic"}
        return not self.on or bool(named & set(self.on))


def attack_entry(entry: dict[str, Any], defenses: Sequence[DefenseRef]) -> AttackEntry:
    """An attack of a board.

    Args:
        entry: {name, label?, params?, views?, on?, source?}, checked.
        defenses: of the board.

    Raises:
        UserError: unknown attack, parameter, view or defense; a source that cannot be one.
    """
    if "name" not in entry:
        raise UserError('an attack has no name; write name = "autoattack:apgd-ce"')
    name, params = entry["name"], entry.get("params", {})
    find_attack(name, params)
    on = entry.get("on", [])
    on = (on,) if isinstance(on, str) else tuple(on)
    labels = {d.label for d in defenses}
    for label in on:
        if label not in labels | {"stochastic", "deterministic"}:
            raise unknown(f'defense in "on" of {name}', label, labels | {"stochastic", "deterministic"})
    views = tuple(ViewSpec(**check("view", view)) for view in entry.get("views", [{}]))
    surrogate = surrogate_of(entry, defenses) if "source" in entry else None
    views = views if surrogate is None else (ViewSpec(gradient="blind"),)  # towards the defense that is judged
    return AttackEntry(name, entry.get("label", name), canonical(params), views, on, surrogate)
