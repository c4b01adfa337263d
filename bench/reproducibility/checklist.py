"""Checklists: their items, and the answers that data give to them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.reproducibility.answers.answer import Answer, Answerer
from bench.reproducibility.answers.answer import hand as by_hand
from bench.reproducibility.answers.attacks import FIELDS as OF_ATTACKS
from bench.reproducibility.answers.checks import of_checks
from bench.reproducibility.answers.facts import FIELDS as OF_FACTS
from bench.reproducibility.answers.gradients import FIELDS as OF_GRADIENTS
from bench.reproducibility.answers.runs import FIELDS as OF_RUNS
from bench.reproducibility.subject import Subject
from defenses.utils.errors import unknown

FIELDS: dict[str, Answerer] = {**OF_ATTACKS, **OF_GRADIENTS, **OF_FACTS, **OF_RUNS}
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
        field: name of the function that answers it.
        hand: hint for the reader, who answers it.
    """

    id: str
    group: str
    text: str
    audit: tuple[str, ...] = ()
    field: str = ""
    hand: str = ""

    def answer(self, subject: Subject) -> Answer:
        """Return the answer that a results folder gives."""
        if self.audit:
            return of_checks(subject, self.audit)
        return FIELDS[self.field](subject) if self.field else by_hand(self.hand)


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

    def answers(self, subject: Subject) -> Iterator[tuple[Item, Answer]]:
        """Yield each item with its answer."""
        for item in self.items:
            yield item, item.answer(subject)


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
