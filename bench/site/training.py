"""Trainings of networks in words, from the descriptions beside their weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defenses.zoo.weight_paths import described_roots


@dataclass(frozen=True)
class Training:
    """A trained network.

    Args:
        network: its kind and sizes.
        recipe: objective, optimiser and steps.
        took: seconds, device and version of PyTorch; "" if unknown.
    """

    network: str
    recipe: str
    took: str


def trainings() -> dict[str, Training]:
    """Return the trainings of all weights that have a description, by the sha256 of the weights."""
    found: dict[str, Training] = {}
    for file in (file for root in described_roots() for file in sorted(Path(root).glob("*/*.json"))):
        try:
            described = json.loads(file.read_bytes())
        except (OSError, ValueError):  # of a folder of the user; its weights have no description then
            continue
        if isinstance(described, dict) and isinstance(described.get("recipe"), dict) and "sha256" in described:
            with suppress(KeyError, TypeError, ValueError):  # as above: written by hand
                found.setdefault(str(described["sha256"]), _training(described))
    return found


def _training(described: Mapping[str, Any]) -> Training:
    recipe, network = described["recipe"], described.get("network") or {}
    size = pairs(network.get("args") or {})
    took = [f"{recipe['seconds']:,.0f} s"] if "seconds" in recipe else []
    took += [f"on {recipe['device']}"] if recipe.get("device") else []
    took += [f"with torch {recipe['torch']}"] if recipe.get("torch") else []
    kind = str(network.get("kind") or recipe.get("kind") or "unknown")
    return Training(f"{kind} ({size})" if size else kind, "; ".join(_recipe(recipe)), " ".join(took))


def _recipe(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a training is, part by part."""
    yield f"{recipe.get('method', 'unknown')} on {recipe.get('dataset', 'unknown data')}, seed {recipe.get('seed', 0)}"
    steps, shipped = recipe.get("steps"), recipe.get("shipped_step")
    if steps is not None:
        of = "" if shipped in (None, steps) else f", of which step {shipped:,} is taken"
        yield f"{steps:,} steps of {recipe.get('batch')} images{of}"
    for phase in recipe.get("phases") or ():
        end = f" to {phase['lr_end']:g}" if phase.get("lr_end") else ""
        more = {name.replace("_", " "): phase[name] for name in ("momentum", "weight_decay") if phase.get(name)}
        until = f"until {phase['until']:,} {recipe.get('unit', 'steps')}"
        yield ", ".join(
            filter(None, (f"{phase['optimizer']}, learning rate {phase['lr']:g}{end} {until}", pairs(more)))
        )
    if recipe.get("objective"):
        yield pairs(recipe["objective"])


def pairs(values: Mapping[str, Any]) -> str:
    """Return names and values as "name = value, name = value"; those within others in brackets."""
    return ", ".join(f"{name} = {_value(value)}" for name, value in sorted(values.items()) if value is not None)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({pairs(value)})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
