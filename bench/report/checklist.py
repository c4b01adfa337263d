"""Checklists of reports: their items, and what answers each of them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from defenses.utils.errors import unknown

_FOLDER = Path(__file__).parent / "checklists"
NAMES = ("carlini2019", "neurips")


@dataclass(frozen=True)
class Item:
    """An item of a checklist, with one source of its answer.

    Args:
        id: unique in its checklist; of a part of an item "<item>/<part>".
        group: in words.
        text: a sentence that is true, false, not measured, not applicable, or for the reader.
        audit: first words of the checks of an audit that answer it.
        field: name of the function of a report that answers it.
        hand: hint for the reader, who answers it.
    """

    id: str
    group: str
    text: str
    audit: tuple[str, ...] = ()
    field: str = ""
    hand: str = ""

    @property
    def line(self) -> str:
        """The text, a part of an item behind a dash."""
        return f"{'– ' if '/' in self.id else ''}{self.text}"


@dataclass(frozen=True)
class Checklist:
    """A checklist.

    Args:
        name: short.
        title: with its source.
        url: of the source.
        about: how to read the answers.
        items: in order.
    """

    name: str
    title: str
    url: str
    about: str
    items: tuple[Item, ...]


def read_checklist(name: str) -> Checklist:
    """Return a checklist.

    Args:
        name: one of `NAMES`.

    Raises:
        UserError: an unknown name.
    """
    if name not in NAMES:
        raise unknown("checklist", name, NAMES)
    content = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    groups = content["groups"]
    items = [
        Item(**{**item, "group": groups[item["group"]], "audit": tuple(item.get("audit", ()))})
        for item in content["item"]
    ]
    return Checklist(name, content["title"], content["url"], content["about"], tuple(items))
