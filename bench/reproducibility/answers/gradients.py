"""Answers from the gradients of a board's attacks."""

from __future__ import annotations

from bench.reproducibility.answers.answer import Answer, Answerer, of_rows
from bench.reproducibility.answers.row_attacks import (
    GRADIENT_CHECKS,
    asking,
    has_exact,
    knows,
    mode,
    of_earlier,
    parts,
)
from bench.reproducibility.subject import Subject, finished
from bench.site.model import SiteRow

_STAND_INS = ("bpda", "surrogate", "smooth", "difference")


def whole_defense(subject: Subject) -> Answer:
    """Return if each defense met an attack through exact gradients that hold, or through its own answers."""
    free = asking("logits")

    def holds(row: SiteRow) -> bool:
        return has_exact(row) or any(knows(found) and free.intersection(parts(row, found)) for found in finished(row))

    what = "exact gradients that certificate and audit let stand, or queries of the whole defense"
    return of_rows(subject.attacked, holds, what, "results", more=_earlier(subject))


def stand_in(subject: Subject) -> Answer:
    """Return if defenses without exact gradients that hold met a stand-in, with all others that met one."""
    rows = [row for row in subject.attacked if _met_stand_in(row) or not has_exact(row)]
    return of_rows(
        rows,
        _met_stand_in,
        "BPDA or another stand-in",
        "attacks",
        none="every defense has exact gradients, and met them" if subject.attacked else "no attack ran here",
        more=_earlier(subject),
    )


def _met_stand_in(row: SiteRow) -> bool:
    return bool(finished(row, lambda found: mode(found) in _STAND_INS))


def _earlier(subject: Subject) -> str:
    checked = [row.label for row in subject.attacked if any(str(c["check"]) in GRADIENT_CHECKS for c in row.checks)]
    return of_earlier(subject, checked)


FIELDS: dict[str, Answerer] = {function.__name__: function for function in (whole_defense, stand_in)}
