"""Outcomes of checks and measurements in words, with a symbol and a CSS class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bench.report.format import number
from bench.store.audits import VERSION

_OUTCOMES = {"fail": ("✗ fails", "bad"), "pass": ("✓ passes", "good"), "not measurable": ("? not measurable", "warn")}
_STATES = {"failed": ("✗ fails", "bad"), "passed": ("✓ passes", "good"), "not measurable": ("? not measurable", "warn")}


def of_version(words: str, version: int | None) -> str:
    """Return the outcome of an audit; it says so where the audit is of an earlier version.

    Args:
        words: the outcome.
        version: the column `audit_version`; None without an audit.
    """
    return words if version in (None, VERSION) else f"{words} (earlier version)"


def audit_texts(check: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts of `check_texts` for the outcome of a whole audit.

    Args:
        check: any of its rows of `bench.load_audits`.
    """
    texts = check_texts({**check, "status": check["audit"]})
    return {**texts, "words": of_version(texts["words"], check["audit_version"])}


def check_texts(check: Mapping[str, Any]) -> dict[str, Any]:
    """Return a check of an audit with the words and the CSS class of its outcome.

    Args:
        check: a row of `bench.load_audits`.
    """
    words, kind = _OUTCOMES.get(str(check["status"]), (str(check["status"]), "q"))
    return {**check, "words": words, "kind": kind, "at": f"{check['norm']} {check['eps']}".strip()}


def measured_texts(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measurement of a certificate as texts.

    Args:
        found: a row of `bench.load_certificates`.
    """
    words, kind = _STATES.get(str(found["check_state"]), (str(found["check_state"]), "q"))
    value, limit = (("not measured" if found[n] is None else _digits(found[n])) for n in ("value", "limit"))
    least = "at least" if found["least"] else "at most"
    name = found["check"] or "no measurement"
    return {**found, "check": name, "words": words, "kind": kind, "value": value, "limit": f"{least} {limit}"}


def _digits(value: float) -> str:
    """Return a measured value; one just below 1, as a cosine, with two digits of its distance from 1."""
    if not 0.99 < value < 1:
        return number(value, 3)
    return f"{value:.{1 - math.floor(math.log10(1 - value))}f}".rstrip("0")
