"""`purebench ls`: list defenses, attacks, data sets, index lists, boards or presets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from bench.attacks.catalogue import HEADER, catalogue, columns
from bench.attacks.registry import attack_names
from bench.board import indices
from bench.board.load import board_names
from bench.board.presets import find_preset, preset_names
from bench.board.subsets import published
from defenses.data import dataset
from defenses.zoo.cards import card, list_models


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("what", nargs="?", choices=tuple(_LISTS), default="defenses")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    print("\n".join(_LISTS[arguments.what]()))
    return 0


def _defenses() -> Iterable[str]:
    return [f"{name:<12} {card(name).summary}" for name in list_models()]


def _attacks() -> Iterable[str]:
    """Return the table of all attacks; further ones of the installed libraries are not measured."""
    measured = {entry.name: columns(entry) for entry in catalogue()}
    blank = ("",) * (len(HEADER) - 2)
    return _aligned([HEADER, *(measured.get(n, (n, *blank, "not measured")) for n in attack_names(_warn))])


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _datasets() -> Iterable[str]:
    return dataset.FORMS


def _indices() -> Iterable[str]:
    return [*indices.FORMS, *_aligned([(s.name, s.dataset, s.source) for s in published()])]


def _presets() -> Iterable[str]:
    for preset in map(find_preset, preset_names()):
        yield f"{preset.name}: {preset.summary}"
        yield f"    source: {preset.source}"
        if preset.differs:
            yield f"    differs: {preset.differs}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


_LISTS = {
    "defenses": _defenses,
    "attacks": _attacks,
    "datasets": _datasets,
    "indices": _indices,
    "boards": board_names,
    "presets": _presets,
}
