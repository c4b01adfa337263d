"""Recipes of attacks: their parameters in full, and the cells that hold their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.analysis.rows import SETTING
from bench.spec.cell import NULLS, PRECOMPUTED
from bench.store.parts import CellRecord

RowKey = tuple[str, ...]
"""Values of `bench.analysis.rows.SETTING`, label of a defense, label of an attack, view."""


@dataclass(frozen=True)
class Recipe:
    """An attack as it ran on a defense.

    Args:
        name: of the attack in its library, "" if it has not run.
        library: with its version.
        parameters: (name, value) of those that are not the library's defaults.
        seed: of the attack.
        knowledge: of the attacker, as "white-box".
        keys: of its cells.
        notes: of its cells, for the reader.
        errors: of its cells.
    """

    name: str
    library: str
    parameters: tuple[tuple[str, str], ...]
    seed: str
    knowledge: str
    keys: tuple[str, ...]
    notes: tuple[str, ...]
    errors: tuple[str, ...]

    @property
    def text(self) -> str:
        """Attack, library and parameters in one line."""
        if not self.name:
            return "has not run"
        if self.name in NULLS:
            return "no attack"
        given = ", ".join(f"{name} = {value}" for name, value in self.parameters)
        if self.name.startswith(PRECOMPUTED):
            return ", ".join(filter(None, ("images from a file", self.library, given)))
        return f"{self.name} of {self.library}: {given or 'its own defaults'}"


def recipes_of(lines: Iterable[CellRecord]) -> dict[RowKey, Recipe]:
    """Return the recipe of each row of tables.

    Args:
        lines: of all cells, see `bench.store.reader.read_folder`.
    """
    rows: dict[RowKey, list[CellRecord]] = {}
    for line in lines:
        key = (*(str(line.get(name)) for name in SETTING), *(str(line[n]) for n in ("defense", "attack", "view")))
        rows.setdefault(key, []).append(line)
    return {key: _recipe(cells) for key, cells in rows.items()}


def _recipe(cells: list[CellRecord]) -> Recipe:
    ran = [line["identity"]["attack"] for line in cells if (line.get("identity") or {}).get("attack")]
    name, parameters, library = [*ran[0], "", "", ""][:3] if ran else ("", {}, "")
    texts: dict[str, dict[str, None]] = {"notes": {}, "error": {}}
    for line in cells:
        texts["notes"].update(dict.fromkeys(map(str, line.get("notes") or ())))
        texts["error"].update({str(line["error"]): None} if line.get("error") else {})
    return Recipe(
        str(name),
        str(library),
        _shown(parameters if isinstance(parameters, Mapping) else {}),
        str(cells[0].get("seed", "")),
        str(cells[0].get("knowledge", "")),
        tuple(str(line["key"]) for line in cells),
        tuple(texts["notes"]),
        tuple(texts["error"]),
    )


def _shown(parameters: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(value)) for name, value in sorted(parameters.items()))
