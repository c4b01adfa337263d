"""Facts about a defense beside its verdicts: card, fingerprint, and the cost of a prediction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.analysis.records import CLEAN
from bench.site.model import About
from defenses.utils.names import portable
from defenses.zoo.cards import card, list_models


def passes_of(cells: pd.DataFrame) -> float:
    """Return the forward passes of one prediction, from the verdicts on clean images; NaN if not counted."""
    clean = cells[(cells["attack"] == CLEAN) & (cells["status"] == "ok")]
    if "forwards_verdict" not in clean or not len(clean):
        return float("nan")
    predictions = (clean["images"] * (clean["draws"] + clean["selection"])).sum()
    return float(clean["forwards_verdict"].sum() / predictions) or float("nan")


def about_of(fingerprints: Sequence[Mapping[str, Any]]) -> About:
    """Return what the card and the fingerprint say of a defense."""
    if not fingerprints:
        return About()
    first = fingerprints[0]
    name, parameters = str(first.get("name", "")), first.get("parameters") or {}
    known = card(name) if name in list_models() else None
    role = known.kind if known else "defense"
    parts = [(str(part.get("role", "part")), str(part.get("name", ""))) for part in first.get("around", ())]
    filters, others = ([p for p in parts if (p[0] == "filter") == wanted] for wanted in (True, False))
    behind = parameters.get("classifier") if role in ("purifier", "detector") else None
    parts = [*filters, (role, portable(name)), *([("classifier", str(behind))] if behind else []), *others]
    hashes = {str(n): str(sha) for f in fingerprints for n, sha in (f.get("weights") or {}).items()}
    if known is None:
        return About(parts=tuple(parts), weights=tuple(hashes.items()))
    year = re.search(r"\b(19|20)\d\d\b", known.venue)
    published = int(year[0]) if year and known.url else None
    return About(published, known.venue, known.licence, tuple(parts), tuple(hashes.items()), card=True)
