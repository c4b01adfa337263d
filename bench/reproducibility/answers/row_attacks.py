"""Gradients and parts of an attack on a row, and the checks of an audit that stand in for it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from bench.analysis.caveats import CERTIFIED, NOT_NEEDED
from bench.attacks.catalogue import catalogue
from bench.attacks.parts import is_targeting, parts_of
from bench.reproducibility.subject import Subject, Values, finished
from bench.site.model import SiteRow
from bench.spec.cell import DEPLOYED, GIVEN
from defenses.utils.text import counted

GRADIENT_CHECKS = ("zero gradients", "gradients agree between seeds", "gradient certificate")  # of an audit
_NONE = (DEPLOYED, GIVEN)
_MADE = ("pass", "fail")  # states of a check that ran


def mode(found: Values) -> str:
    """Return the gradient mode of an attack on a row, without its number."""
    return str(found["gradient"]).partition(":")[0]


def knows(found: Values) -> bool:
    """Return True for an attack that is not blind to the defense."""
    return mode(found) not in ("", "blind") and found["view"] not in _NONE


def named(row: SiteRow, found: Values) -> str:
    """Return the name of an attack in its library; "" if it has not run."""
    recipe = row.recipes.get((found["attack"], found["view"]))
    return recipe.name if recipe else ""


def parts(row: SiteRow, found: Values) -> list[str]:
    """Return the names of the single attacks that an attack on a row ran; none if it has not run."""
    recipe = row.recipes.get((found["attack"], found["view"]))
    if not recipe or not recipe.name:
        return []
    left_out = {word for note in recipe.notes if "left out" in note for word in re.findall(r"[\w-]+", note)}
    every = parts_of(recipe.name, dict(recipe.parameters))
    return [part for part in every if part.rpartition(":")[2] not in left_out]


def targeting(row: SiteRow, found: Values) -> list[str]:
    """Return the parts of an attack on a row that choose target classes themselves."""
    recipe = row.recipes.get((found["attack"], found["view"]))
    given = dict(recipe.parameters) if recipe else {}
    return [part for part in parts(row, found) if is_targeting(part, given)]


def every_part(row: SiteRow) -> Iterator[str]:
    """Yield the names of the single attacks on a row that have a number."""
    for found in finished(row):
        yield from parts(row, found)


def met_free(row: SiteRow) -> bool:
    """Return True if a row met an attack that asks for logits and no gradients, on the board."""
    return any(part in asking("logits") for part in every_part(row))


def has_exact(row: SiteRow) -> bool:
    """Return True if a row met exact gradients that its certificate and the checks of its audit let stand."""
    failed = any(str(check["check"]) in GRADIENT_CHECKS and check["status"] == "fail" for check in row.checks)
    stands = row.values["certificate"] in (CERTIFIED, NOT_NEEDED) and not failed
    return stands and any(mode(found) == "exact" for found in finished(row))


def audited(row: SiteRow, check: str) -> bool:
    """Return True if the audit of a row made a check of which this are the first words."""
    return any(str(c["check"]).startswith(check) and c["status"] in _MADE for c in row.checks)


def of_earlier(subject: Subject, labels: Iterable[str]) -> str:
    """Return how many defenses have an audit of an earlier version as the end of an evidence; "" for none.

    Args:
        subject: the results folder.
        labels: of the defenses whose audits the answer rests on.
    """
    count = len(set(labels) & set(subject.earlier))
    return f"; checks of an earlier version of the audit on {counted(count, 'defense')}" if count else ""


@functools.cache
def asking(what: str) -> frozenset[str]:
    """Return the names of attacks that ask a model for "gradients", "logits" or "nothing"."""
    return frozenset(entry.name for entry in catalogue() if entry.asks == what)
