"""Curves of audits: accuracy against the radius and the effort of the attack, for each audit by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import pandas as pd

from bench.figures.picture import Picture
from bench.figures.pictures import of_audits

AUDIT = ("results", "fingerprint", "dataset", "norm", "eps", "budget", "seed")
_SETTING = ("dataset", "norm", "eps")
Curves = Mapping[tuple[str, ...], tuple[Picture, ...]]
"""Pictures *checks*, *radius* and *convergence*, where stored, by the values of `AUDIT`."""


def curves_of(audits: pd.DataFrame) -> Curves:
    """Return the curves of each audit.

    Args:
        audits: rows of `bench.load_audits`.
    """
    groups = audits.groupby(list(AUDIT), sort=False, dropna=False)
    return {tuple(map(str, key)): tuple(of_audits(of, {"checks", "radius", "convergence"})) for key, of in groups}


def radius_of(curves: Curves, fingerprints: Collection[str], setting: Mapping[str, str]) -> Iterator[Picture]:
    """Yield the picture *radius* of each fingerprint under a threat, of the first audit that has one.

    Args:
        curves: see `curves_of`.
        fingerprints: of a row, one for each training.
        setting: of its board.
    """
    for fingerprint in fingerprints:
        audited = (found for key, found in curves.items() if _is_of(key, fingerprint, setting))
        yield from [picture for found in audited for picture in found if picture.name == "radius"][:1]


def convergence_of(audits: pd.DataFrame, labels: Mapping[str, str], setting: Mapping[str, str]) -> Iterator[Picture]:
    """Yield the picture *convergence* of the defenses of a board under its threat, a line for each.

    Args:
        audits: rows of `bench.load_audits`.
        labels: of its rows, by fingerprint.
        setting: of the board.
    """
    here = audits["fingerprint"].isin(list(labels))
    for name in _SETTING:
        here &= audits[name].astype(str) == setting[name]
    mine = audits[here].drop_duplicates(["fingerprint", "check"])
    yield from of_audits(mine.assign(defense=mine["fingerprint"].map(labels)), {"convergence"})


def _is_of(key: tuple[str, ...], fingerprint: str, setting: Mapping[str, str]) -> bool:
    found = dict(zip(AUDIT, key, strict=True))
    return found["fingerprint"] == fingerprint and all(found[name] == setting[name] for name in _SETTING)
