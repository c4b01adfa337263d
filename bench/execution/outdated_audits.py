"""Mark the audits of a results folder that were made with an earlier state of the user's code and files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.execution.sources import Sources
from bench.spec.cell import DefenseRef, digest
from bench.store.audits import mark_audits, read_audits


def mark_outdated_audits(results: Path, defenses: Iterable[DefenseRef]) -> list[str]:
    """Mark the audits that no longer hold, and unmark those that hold again.

    Args:
        results: the results folder.
        defenses: defenses of its board.

    Returns:
        A line about each audit that no longer holds, for the user.

    Raises:
        UserError: the audits are damaged.
    """
    audits, sources = read_audits(results), Sources()
    known = {digest(defense.fingerprint): defense for defense in defenses} if audits else {}
    reasons: dict[int, str] = {}
    for number, audit in enumerate(audits):
        defense = known.get(digest(audit["fingerprint"]))
        if defense is not None and audit.get("sources"):
            reasons[number] = sources.reason_against(defense, audit)
    mark_audits(results, reasons)
    outdated = [(audits[number], reason) for number, reason in reasons.items() if reason]
    return [
        f"the audit of {audit['label']} at {audit['norm']} {audit['eps']} is of {reason}, and does not count; "
        "run purebench audit again"
        for audit, reason in outdated
    ]
