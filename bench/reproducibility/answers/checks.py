"""Answers from checks of audits."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.attack_warnings import listed
from bench.reproducibility.answers.answer import Answer, absent, decided, unmeasured
from bench.reproducibility.answers.row_attacks import of_earlier
from bench.reproducibility.subject import Subject

_STATES = ("pass", "fail", "not measurable")
_WITHOUT = "not audited"


def of_checks(subject: Subject, names: Sequence[str]) -> Answer:
    """Return yes if each reported defense passes some checks of its audit, as far as they apply to it.

    A check that fails or could not be measured makes it a no; without one, a defense that is not audited leaves the
    item unmeasured.

    Args:
        subject: the results folder.
        names: first words of the names of the checks.
    """
    if not subject.audited:
        return absent("nothing here is attacked")
    by_state: dict[str, list[str]] = {}
    for label, checks in subject.audited:
        found = [str(check["status"]) for check in checks if str(check["check"]).startswith(tuple(names))]
        by_state.setdefault(_together(found), []).append(label)
    states = (*_STATES, "not applicable", _WITHOUT)
    texts = [_told(state, by_state[state]) for state in states if state in by_state]
    if by_state.keys() == {"not applicable"}:
        return absent("; ".join(texts), "audit")
    made = [label for state, labels in by_state.items() if state != _WITHOUT for label in labels]
    text = f"audit: {'; '.join(texts)}" + of_earlier(subject, made)
    if not made:
        return unmeasured(f"not audited: {len(by_state[_WITHOUT])} of {len(subject.audited)}; purebench audit", "audit")
    if by_state.keys() & {"fail", "not measurable"} or _WITHOUT not in by_state:
        return decided(not by_state.keys() - {"pass", "not applicable"}, text, "audit")
    return unmeasured(text, "audit")


def _together(found: Sequence[str]) -> str:
    """Return the outcome of several checks of a defense together: the worst one."""
    for state in ("fail", "not measurable", "pass"):
        if state in found:
            return state
    return "not applicable" if found else _WITHOUT


def _told(state: str, labels: Sequence[str]) -> str:
    verb = {"pass": "passes", "fail": "fails"}.get(state, state)
    named = f" ({listed(list(labels))})" if state in ("fail", "not measurable", _WITHOUT) else ""
    return f"{verb} {len(labels)}{named}"
