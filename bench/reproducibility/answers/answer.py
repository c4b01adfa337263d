"""An answer to an item of a checklist, and how to count it over defenses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from bench.report.attack_warnings import listed
from bench.reproducibility.subject import Subject
from bench.site.model import SiteRow
from defenses.utils.text import counted

YES, NO, UNKNOWN, HAND = "yes", "no", "not measured", "by hand"
State = Literal["yes", "no", "not measured", "not applicable", "by hand"]


@dataclass(frozen=True)
class Answer:
    """An answer to an item.

    Args:
        state: of the item.
        evidence: the numbers or files that it rests on, or what a reader has to do.
        section: name of the section of the report that shows them; "" for none.
    """

    state: State
    evidence: str
    section: str = ""


Answerer = Callable[[Subject], Answer]


def hand(hint: str, section: str = "") -> Answer:
    """Return the answer that only a reader can give."""
    return Answer("by hand", hint, section)


def absent(why: str, section: str = "") -> Answer:
    """Return the answer of an item that does not apply."""
    return Answer("not applicable", why, section)


def unmeasured(why: str, section: str) -> Answer:
    """Return the answer of an item that nothing was measured for."""
    return Answer("not measured", why, section)


def decided(holds: bool, evidence: str, section: str = "") -> Answer:
    """Return a yes or a no with its evidence."""
    return Answer("yes" if holds else "no", evidence, section)


def of_rows(
    rows: Iterable[SiteRow],
    holds: Callable[[SiteRow], bool],
    what: str,
    section: str,
    *,
    none: str = "no attack ran here",
    more: str = "",
) -> Answer:
    """Return yes if something holds for all rows.

    Args:
        rows: to which it applies.
        holds: of a row.
        what: that holds, in words.
        section: that shows it.
        none: why it applies to no row.
        more: end of the evidence.
    """
    applies = list(rows)
    if not applies:
        return absent(none)
    lacking = [row.label for row in applies if not holds(row)]
    text = f"{what}: {len(applies) - len(lacking)} of {counted(len(applies), 'defense')}"
    return decided(not lacking, (f"{text}; not {listed(lacking)}" if lacking else text) + more, section)
