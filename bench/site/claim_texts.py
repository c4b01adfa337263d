"""Claims and their verdicts as texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bench.analysis.claims import POINTS_LEFT
from bench.report.format import points
from bench.site.text import interval, missing, percent

VERDICTS = ("refuted", "not reached", "consistent", "not comparable")  # as they are ordered
Claim = Mapping[str, Any]


def order_of(claim: Claim) -> tuple[int, bool, bool]:
    """Return what orders claims: those that can be compared first, then those whose protocol ran, then the authors'."""
    word = str(claim["verdict"])
    at = VERDICTS.index(word) if word in VERDICTS else len(VERDICTS)
    return at, missing(claim.get(POINTS_LEFT[0])), claim["kind"] != "claim"


def claim_texts(claim: Claim) -> dict[str, Any]:
    """Return a row of `bench.claims_table` as texts."""
    n = int(claim["measured_n"] or 0)
    measured = claim["measured_robust"]
    return {
        "url": claim["url"],
        "by": ", ".join(str(told) for told in (claim["paper"], claim["year"]) if told),
        "who": str(claim["kind"]),
        "on": f"{claim['dataset']} {claim['threat']}".strip(),
        "clean": _told(claim["claimed_clean"]),
        "robust": _told(claim["claimed_robust"]),
        "n": "not told" if claim["claimed_n"] is None else f"{claim['claimed_n']:,}",
        "measured_clean": "not run" if claim["measured_clean"] is None else percent(claim["measured_clean"], n),
        "measured": "not run"
        if measured is None
        else f"{percent(measured, n)} {interval(claim['measured_low'], claim['measured_high'], n)}",
        "why": "; ".join(filter(None, (claim["reason"], claim["note"]))),
        "left": points_left(claim),
    }


def points_left(claim: Claim) -> str:
    """Return the points that the protocol of a claim leaves above the full one, with their interval."""
    value, low, high = (math.nan if missing(claim[name]) else claim[name] for name in POINTS_LEFT)
    return "protocol not run" if math.isnan(value) else points(value, low, high)


def _told(share: float | None) -> str:
    return "not told" if share is None else f"{100 * share:.2f}"
