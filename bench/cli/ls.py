"""`purebench ls`: what there is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from bench.board.load import board_names
from bench.cli.arguments import Declare


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare("ls", _ls, "List what there is.")
    sub.add_argument("what", nargs="?", choices=tuple(_LISTS), default="defenses")


def _ls(arguments: argparse.Namespace) -> int:
    print("\n".join(_LISTS[arguments.what]()))
    return 0


def _defenses() -> Iterable[str]:
    from defenses.zoo.cards import card, list_models

    return [f"{name:<12} {card(name).summary}" for name in list_models()]


def _attacks() -> Iterable[str]:
    """The table of all attacks; what the installed libraries have besides is not measured."""
    from bench.attacks.catalogue import HEADER, catalogue, columns
    from bench.attacks.registry import attack_names

    known = {entry.name: columns(entry) for entry in catalogue()}
    blank = ("",) * (len(HEADER) - 2)
    return _aligned([HEADER, *(known.get(n, (n, *blank, "not measured")) for n in attack_names(_warn))])


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _datasets() -> Iterable[str]:
    from defenses.data.dataset import FORMS

    return FORMS


def _indices() -> Iterable[str]:
    from bench.board.indices import FORMS
    from bench.board.subsets import published

    return [*FORMS, *_aligned([(s.name, s.dataset, s.source) for s in published()])]


def _presets() -> Iterable[str]:
    from bench.board.presets import find_preset, preset_names

    for preset in map(find_preset, preset_names()):
        yield f"{preset.name}: {preset.summary}"
        yield f"    source: {preset.source}"
        if preset.differs:
            yield f"    differs: {preset.differs}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
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
