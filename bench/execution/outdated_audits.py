"""Mark the audits of a results folder that were made with an earlier state of the user's code and files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.execution.sources import Sources
from bench.spec.cell import DefenseRef, digest
from bench.store.audits import mark_audits
from defenses.utils.json_values import JsonView


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
    sources, known = Sources(), {digest(defense.fingerprint): defense for defense in defenses}

    def reason_of(audit: JsonView) -> str | None:
        defense = known.get(digest(audit["fingerprint"]))
        return sources.reason_against(defense, audit) if defense is not None and audit.get("sources") else None

    return [
        f"the audit of {audit['label']} at {audit['norm']} {audit['eps']} is of {audit['outdated']}, and does not "
        "count; run purebench audit again"
        for audit in mark_audits(results, reason_of)
    ]
