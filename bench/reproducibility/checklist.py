"""Checklists, with the answers that data give to their items."""

from __future__ import annotations

from collections.abc import Iterator

from bench.report import checklist
from bench.report.checklist import NAMES, Item
from bench.reproducibility.answers.answer import Answer, Answerer
from bench.reproducibility.answers.answer import hand as by_hand
from bench.reproducibility.answers.attacks import FIELDS as OF_ATTACKS
from bench.reproducibility.answers.checks import of_checks
from bench.reproducibility.answers.facts import FIELDS as OF_FACTS
from bench.reproducibility.answers.gradients import FIELDS as OF_GRADIENTS
from bench.reproducibility.answers.runs import FIELDS as OF_RUNS
from bench.reproducibility.subject import Subject

__all__ = ["FIELDS", "NAMES", "Checklist", "Item", "read_checklist"]

FIELDS: dict[str, Answerer] = {**OF_ATTACKS, **OF_GRADIENTS, **OF_FACTS, **OF_RUNS}


class Checklist(checklist.Checklist):
    """Answer the items of a checklist from a results folder."""

    def answers(self, subject: Subject) -> Iterator[tuple[Item, Answer]]:
        """Yield each item with its answer."""
        for item in self.items:
            yield item, _answer(item, subject)


def read_checklist(name: str) -> Checklist:
    """Return a checklist; see `bench.report.checklist.read_checklist`."""
    return Checklist(**vars(checklist.read_checklist(name)))


def _answer(item: Item, subject: Subject) -> Answer:
    """Return the answer that a results folder gives to an item."""
    if item.audit:
        return of_checks(subject, item.audit)
    return FIELDS[item.field](subject) if item.field else by_hand(item.hand)
