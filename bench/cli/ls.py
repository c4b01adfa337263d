"""`purebench ls`: list defenses, attacks, data sets, index lists, boards and presets."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.attacks.catalogue import HEADER, catalogue, columns
from bench.attacks.registry import attack_names
from bench.board import indices
from bench.board.load import board_names, find_board
from bench.board.presets import find_preset, preset_names
from bench.board.subsets import published
from bench.cli.terminal import aligned_each, heading, width
from defenses.data.dataset import FORMS, NAMES, dataset_info
from defenses.utils.errors import unknown
from defenses.utils.hints import warn
from defenses.zoo.cards import FAMILIES, card, list_models


@dataclass(frozen=True)
class _Item:
    """A line of a list.

    Args:
        group: heading that it stands under; "": that of its kind.
        cells: name, and what is told of it.
        more: further text that a search finds.
    """

    group: str
    cells: tuple[str, ...]
    more: str = ""

    def matches(self, words: Sequence[str]) -> bool:
        """Return True if each of some words is in its text."""
        text = " ".join((self.group, *self.cells, self.more)).lower()
        return all(word.lower() in text for word in words)


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    kinds = ", ".join(_LISTS)
    text = f"a kind ({kinds}; default: defenses), then words that each line must have; words alone search all kinds"
    sub.add_argument("words", nargs="*", metavar="KIND or WORD", help=text)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    kind, words = next(iter(_LISTS)), arguments.words
    if words and words[0] in _LISTS:
        kind, words = words[0], words[1:]
        kinds: Iterable[str] = (kind,)
    else:
        kinds = _LISTS if words else (kind,)
    found = {k: [item for item in _LISTS[k]() if item.matches(words)] for k in kinds}
    if not any(found.values()):
        names = [item.cells[0] for make in _LISTS.values() for item in make() if "<" not in item.cells[0]]
        error = unknown("kind, name or word", " ".join(words), [*_LISTS, *names])
        raise error if "did you mean" in str(error) else unknown("kind, name or word", " ".join(words), _LISTS)
    print("\n\n".join("\n".join(_lines(k, items)) for k, items in found.items() if items))
    if not arguments.words and width():
        others = ", ".join(k for k in _LISTS if k != kind)
        print(f"\nAlso: purebench ls KIND, with {others}; ls WORD searches them all; show NAME tells more.")
    return 0


def _lines(kind: str, items: Sequence[_Item]) -> list[str]:
    """Return the lines of a list, by group."""
    groups: dict[str, list[_Item]] = {}
    for item in items:
        groups.setdefault(item.group or kind, []).append(item)
    header = [HEADER] if kind == "attacks" and not width() else []
    longest = max(len(cells) for cells in (*header, *(item.cells for item in items)))
    rows = [
        (*cells, *[""] * (longest - len(cells))) for cells in (*header, *(i.cells for g in groups.values() for i in g))
    ]
    lines = iter(aligned_each(rows, width(), indent=2))
    shown = [line for _ in header for line in next(lines)]
    for name, members in groups.items():
        shown += [*([""] if shown else []), heading(name), *(line for _ in members for line in next(lines))]
    return shown


def _defenses() -> list[_Item]:
    known = sorted(map(card, list_models()), key=lambda c: FAMILIES.index(c.family))
    return [_Item(c.family, (c.name, c.summary), f"{c.title} {c.authors} {c.venue}") for c in known]


def _attacks() -> list[_Item]:
    """Return all attacks; further ones of the installed libraries are not measured."""
    measured = {entry.name: entry for entry in catalogue()}
    items = []
    for name in attack_names(warn):
        entry = measured.get(name)
        group = name.partition(":")[0] if ":" in name else "null attacks"
        if entry is None:
            cells = (name, "not measured") if width() else (name, *[""] * (len(HEADER) - 2), "not measured")
        else:
            needs = f"; needs {entry.needs}" if entry.needs else ""
            asks = f"; asks for {entry.asks}" if entry.asks else ""
            short = f"{', '.join(entry.norms()) or 'cannot run'}{asks}{needs}"
            cells = (name, short) if width() else columns(entry)
        items.append(_Item(group, cells, "" if entry is None else " ".join(columns(entry))))
    return items


def _datasets() -> list[_Item]:
    items = []
    for form in FORMS:
        about = ""
        if form in NAMES:
            info = dataset_info(form)
            sizes = ", ".join(f"{n:,} {split}" for split, n in info.splits.items())
            about = f"{'x'.join(map(str, info.shape))}, {info.num_classes} classes: {sizes}"
        items.append(_Item("", (form, about)))
    return items


def _indices() -> list[_Item]:
    forms = [_Item("", (form, "")) for form in indices.FORMS]
    return [*forms, *(_Item("indices of publications", (s.name, f"{s.dataset}: {s.source}")) for s in published())]


def _boards() -> list[_Item]:
    raw = {name: tomllib.loads(find_board(name).read_text(encoding="utf-8")) for name in board_names()}
    return [_Item("", (name, str(content.get("title", "")))) for name, content in raw.items()]


_LISTS: dict[str, Callable[[], list[_Item]]] = {
    "defenses": _defenses,
    "attacks": _attacks,
    "datasets": _datasets,
    "indices": _indices,
    "boards": _boards,
    "presets": lambda: [
        _Item("", (p.name, p.summary), f"{p.source} {p.differs}") for p in map(find_preset, preset_names())
    ],
}
