"""Attack entries of a board. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from bench.attacks.registry import find_attack
from bench.board.presets import check_defenses, find_preset, norm_of
from bench.board.views import surrogate_of
from bench.spec.cell import DefenseRef
from bench.spec.view import ViewSpec
from defenses.utils.errors import unknown
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import short_names
from defenses.utils.parameters import canonical


@dataclass(frozen=True)
class AttackEntry:
    """An attack of a board.

    Args:
        name: name of the attack, as "autoattack:apgd-ce".
        label: name in tables.
        params: parameters, in canonical form.
        views: views that it attacks.
        on: labels of its defenses, "stochastic" or "deterministic"; empty: all.
        surrogate: the defense that its images are made on; None: the defense on which they are judged.
        source_view: the view of the surrogate that is attacked.
    """

    name: str
    label: str
    params: JsonView = field(default_factory=dict)
    views: tuple[ViewSpec, ...] = (ViewSpec(),)
    on: tuple[str, ...] = ()
    surrogate: DefenseRef | None = None
    source_view: ViewSpec = field(default_factory=ViewSpec)

    def meets(self, defense: DefenseRef) -> bool:
        """Return True if the attack is run against a defense, which is never its own surrogate."""
        if self.surrogate is not None and self.surrogate.title == defense.title:
            return False
        kind = "stochastic" if defense.stochastic else "deterministic"
        return not self.on or kind in self.on or any(defense.is_called(text) for text in self.on)


def attack_entry(entry: Json, defenses: Sequence[DefenseRef]) -> AttackEntry:
    """Return the attack of a board entry.

    Args:
        entry: {name, label?, params?, views?, on?, source?}, its keys checked.
        defenses: defenses of the board.

    Raises:
        UserError: unknown attack, parameter, view or defense; a defense that cannot be a source.
    """
    name, params = entry["name"], entry.get("params", {})
    find_attack(name, params)
    on = _known(entry.get("on", []), name, defenses)
    views = tuple(ViewSpec(**view) for view in entry.get("views", [{}]))
    of_source: tuple[DefenseRef, ViewSpec] | tuple[()] = surrogate_of(entry, defenses) if "source" in entry else ()
    views = (ViewSpec(gradient="blind"),) if of_source else views  # of the defense on which it is judged
    return AttackEntry(name, entry.get("label", *short_names([name])), canonical(params), views, on, *of_source)


def protocol_entries(entry: Json, threat: JsonView, defenses: Sequence[DefenseRef]) -> Iterator[AttackEntry]:
    """Yield the attacks of a protocol entry of a board: those of a preset, on the defenses that both name.

    Args:
        entry: {preset, on?}, its keys checked.
        threat: of the board.
        defenses: defenses of the board.

    Raises:
        UserError: an unknown defense, or a preset that does not fit the norm or a defense.
    """
    preset = find_preset(entry["preset"])
    norm_of(preset, threat)
    on = _known(entry.get("on", []), f"protocol {preset.name}", defenses)
    whole = AttackEntry(preset.name, preset.name, on=on)
    chosen = [d for d in defenses if whole.meets(d)]
    check_defenses(preset, [d.label for d in chosen if d.stochastic])
    for attack in preset.attacks():
        found = attack_entry(attack, defenses)
        if met := dict.fromkeys(d.label for d in chosen if found.meets(d)):
            yield replace(found, on=tuple(met))


def _known(on: str | Sequence[str], where: str, defenses: Sequence[DefenseRef]) -> tuple[str, ...]:
    """Return the words of a key "on", each of which is a defense of the board or a kind of them."""
    words = (on,) if isinstance(on, str) else tuple(on)
    known = {"stochastic", "deterministic"} | {d.label for d in defenses}
    for label in words:
        if label not in known and not any(d.is_called(label) for d in defenses):
            raise unknown(f'defense in "on" of {where}', label, known)
    return words
