"""Descriptions of boards."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from bench.board.load import board_names, find_board, load_board
from bench.cli.describe import attack_row
from defenses.utils.json_values import Json

if TYPE_CHECKING:
    from bench.board.attack_entry import AttackEntry
    from bench.spec.cell import DefenseRef


def board(name: str, roots: dict[str, Path | None]) -> Json | None:
    """Return the description of a board file or of a board of purebench; None for another name.

    Args:
        name: the file or name.
        roots: `weights_root` and `data_root` of `load_board`.

    Raises:
        UserError: the file is no valid board.
    """
    if name not in board_names() and not name.endswith(".toml"):
        return None
    if _is_poisoning(find_board(name)):
        return _poisoning(name, roots)
    found = load_board(name, **roots)
    cells = found.cells()
    sizes = [c.data.stop - c.data.start for c in cells]
    blocks = {(c.data.start, c.data.stop) for c in cells}
    draws = f"{found.verdict.draws} held-out, {found.verdict.selection} for selection"
    return {
        "is": "board",
        "name": found.name,
        "about": found.title,
        "data": f"{found.dataset} {found.split}, {found.indices}: {sum(stop - start for start, stop in blocks)} images",
        "threat": [str(threat) for threat in found.threats],
        **({"preset": found.preset.name} if found.preset else {}),
        "budget": found.budget,
        "null attacks": list(found.nulls),
        "draws": draws if any(d.stochastic for d in found.defenses) else "one: no defense is randomised",
        "size": f"{len(cells)} cells of up to {max(sizes, default=0)} images, {sum(sizes)} adversarial images",
        "defenses": [_defense_row(known) for known in found.defenses],
        "attacks": [_attack_row(entry) for entry in found.attacks],
    }


def _defense_row(known: DefenseRef) -> dict[str, object]:
    return (
        {"defense": known.title, "randomised": known.stochastic}
        | ({"name": known.name} if known.name not in ("", known.label) else {})
        | ({"params": dict(known.params)} if known.params else {})
    )


def _attack_row(entry: AttackEntry) -> Json:
    return (
        {"attack": entry.name}
        | ({"label": entry.label} if entry.label != entry.name else {})
        | ({"params": dict(entry.params)} if entry.params else {})
        | (
            {"views": [view.label(entry.on != ("deterministic",)) for view in entry.views]}
            if entry.surrogate is None
            else {}
        )
        | ({"on": list(entry.on)} if entry.on else {})
        | ({"source": entry.surrogate.label} if entry.surrogate else {})
        | ({"source_view": entry.source_view.label(True)} if entry.surrogate and entry.surrogate.stochastic else {})
    )


def _is_poisoning(file: Path) -> bool:
    """Return True if a file is a poisoning board."""
    try:
        return "training" in tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False  # `load_board` says what is wrong


def _poisoning(name: str, roots: dict[str, Path | None]) -> dict[str, object]:
    """Return the description of a poisoning board, whose checks need torch."""
    from bench.tracks.poisoning.board import load_poison_board
    from defenses.data.dataset import dataset_info

    found = load_poison_board(name, **roots)
    raw = tomllib.loads(find_board(name).read_text(encoding="utf-8"))
    trials = len(found.trials(dataset_info(found.dataset, root=roots["data_root"])))
    return {
        "is": "poisoning board",
        "name": found.name,
        "about": found.title,
        "data": found.dataset,
        "seeds": list(found.seeds),
        "target": found.target,
        "training": raw["training"],
        "trigger": raw.get("trigger", {}),
        "size": f"{trials} trials",
        "attacks": [attack_row(entry) for entry in raw["attack"]],
        "purifiers": raw.get("purifier", []),
    }
