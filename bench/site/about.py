"""Facts about a defense beside its verdicts: card, fingerprint, and the cost of a prediction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.site.model import About, Part
from bench.site.training import Training, pairs
from defenses.utils.names import portable
from defenses.zoo.cards import card, list_models
from defenses.zoo.weight_paths import seeded

_ELSEWHERE = ("filters", "detector", "classifier")  # parameters that name other parts


def about_of(fingerprints: Sequence[Mapping[str, Any]], trained: Mapping[str, Training]) -> About:
    """Return what the card, the fingerprints and descriptions of weights say of a defense.

    Args:
        fingerprints: of each of its trainings.
        trained: see `bench.site.training.trainings`.
    """
    if not fingerprints:
        return About()
    name = str(fingerprints[0].get("name", ""))
    known = card(name) if name in list_models() else None
    hashes = dict(pair for f in fingerprints for pair in _weights(f))
    trainings = {sha: trained[sha] for sha in hashes.values() if sha in trained}
    about = About(
        parts=_parts(fingerprints[0], known.kind if known else "defense"),
        weights=tuple(hashes.items()),
        trainings=trainings,
    )
    if known is None:
        return about
    year = re.search(r"\b(19|20)\d\d\b", known.venue)
    published = int(year[0]) if year and known.url else None
    return replace(about, year=published, venue=known.venue, licence=known.licence, card=True)


def _parts(fingerprint: Mapping[str, Any], role: str) -> tuple[Part, ...]:
    """Return the parts of a defense, in the order in which an image passes them."""
    parameters = fingerprint.get("parameters") or {}
    around = [
        Part(str(part.get("role", "part")), portable(str(part.get("name", ""))), pairs(part.get("parameters") or {}))
        for part in fingerprint.get("around", ())
    ]
    filters, others = ([p for p in around if (p.role == "filter") == wanted] for wanted in (True, False))
    behind = parameters.get("classifier") if role in ("purifier", "detector") else None
    own = {key: value for key, value in parameters.items() if key not in _ELSEWHERE}
    itself = Part(role, portable(str(fingerprint.get("name", ""))), pairs(own))
    named = [Part("classifier", behind)] if isinstance(behind, str) else []  # another one is among those around it
    return (*filters, itself, *named, *others)


def _weights(fingerprint: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and sha256 of the weights of a training, those of parts around it as well."""
    for part in (fingerprint, *fingerprint.get("around", ())):
        for name, sha in (part.get("weights") or {}).items():
            yield seeded(str(name), fingerprint.get("training_seed")), str(sha)
