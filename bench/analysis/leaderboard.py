"""The leaderboard of one or several results folders: a row per board, threat and defense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.caveats import AuditState, audit_states, certificate_states, fingerprints_of
from bench.analysis.claim_files import Claim, read_claims
from bench.analysis.claims import POINTS_LEFT, Verdict, foremost
from bench.analysis.columns import with_columns
from bench.analysis.public_names import public
from bench.analysis.ranks import rank_ranges_of
from bench.analysis.records import CLEAN
from bench.analysis.reproduction import NO_POINTS, points_of, points_on
from bench.analysis.results import Results, read_results
from bench.analysis.rows import SETTING, Group, grouped
from bench.analysis.scores import common
from bench.analysis.sides import Side, worst_side
from bench.analysis.summary import WORST, worst_row
from bench.analysis.weights_used import name_and_weights
from bench.spec.cell import digest
from bench.store.audits import current_audits, is_audit_folder
from bench.store.kinds import folder_named
from bench.store.manifest import read_manifest
from defenses.utils.errors import UserError
from defenses.zoo.cards import card, list_models

_M = 5
_COLUMNS = {
    **dict.fromkeys(("board", *SETTING, "defense"), "str"),
    **dict.fromkeys(("rank_low", "rank_high"), "Int64"),
    **dict.fromkeys(("worst_mean", "worst_low", "worst_high"), "float64"),
    **dict.fromkeys(("worst_attack", "worst_view"), "str"),
    **dict.fromkeys(("clean_mean", "clean_low", "clean_high"), "float64"),
    **dict.fromkeys((f"rob_m{_M}", f"rob_m{_M}_low", f"rob_m{_M}_high"), "float64"),
    **dict.fromkeys(("audit", "audit_failed"), "str"),
    "audit_version": "Int64",
    "certificate": "str",
    "claim": "str",
    "claim_robust": "float64",
    **dict.fromkeys(("claim_verdict", "claim_reason", "claim_evidence"), "str"),
    **dict.fromkeys(POINTS_LEFT, "float64"),
    "stochastic": "bool",
    **dict.fromkeys(("draws", "n_images", "n_seeds"), "int64"),
    **dict.fromkeys(("budget", "compute"), "str"),
    **dict.fromkeys(("evaluations_per_image", "seconds_per_image"), "float64"),
    **dict.fromkeys(("paper", "url", "status", "results", "fingerprint"), "str"),
}
_AUDITS = ("fail", "none", "not measurable", "pass")  # the first one that a training has is the defense's


@dataclass(frozen=True)
class _Entry:
    """A row of the leaderboard before it has a rank.

    Args:
        columns: its values by column.
        side: its worst case; None: it takes no part in the ranks.
    """

    columns: dict[str, Any]
    side: Side | None


@with_columns
def leaderboard(*results: str | Path, claims: Iterable[Claim] | None = None, confidence: float = 0.95) -> pd.DataFrame:
    """Return a row per board, threat and defense: worst case, range of ranks, audit, certificate and costs.

    Args:
        *results: results folders. The audits of all of them count, of defenses with the same fingerprint; a folder may
            hold audits alone.
        claims: published claims; None: those that come with purebench.
        confidence: of the ranges of ranks, in (0, 1); the other intervals are those of `summary`, 95%.

    Returns:
        The threats of each folder in board order, the best worst case of each first, rows without a rank last: those
        that fail their audit or are incomplete. `rob_m5` is NaN for deterministic defenses, and for fewer than five
        draws; `audit` is "none" without an audit of every training; `certificate` is "not needed" without an attack
        that uses exact gradients; `bench.claims_table` has all claims, `claim` is the one that compares best.
        Columns: those of `purebench columns leaderboard`.

    Raises:
        UserError: no folder, no results there, or a damaged file.
    """
    folders = list(dict.fromkeys(folder_named(folder) for folder in results))
    if not folders:
        raise UserError("leaderboard needs the folder of a run, as results/quickstart")
    audits = [audit for folder in folders for audit in current_audits(folder)]
    known = read_claims() if claims is None else list(claims)
    boards = [folder for folder in folders if not is_audit_folder(folder)]
    frames = [leaderboard_of(folder, read_results(folder), audits, known, confidence) for folder in boards]
    return pd.concat(frames, ignore_index=True) if frames else _frame([])


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return public(pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS))


def leaderboard_of(
    folder: Path,
    results: Results,
    audits: Sequence[Mapping[str, Any]],
    claims: Sequence[Claim],
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return the rows of `leaderboard` for one results folder.

    Args:
        folder: the folder.
        results: what `read_results` read from it.
        audits: of this folder and of others, see `bench.store.audits.current_audits`.
        claims: the claims.
        confidence: see `leaderboard`.
    """
    manifest = read_manifest(folder)
    keys = {digest(f) for label in results.cells["defense"].unique() for f in fingerprints_of(manifest, label).values()}
    states = audit_states([audit for audit in audits if digest(audit["fingerprint"]) in keys], manifest)
    certificates = certificate_states(folder, results.cells, manifest)
    shared = {"board": manifest.get("board") or folder.resolve().name, "results": str(folder)}
    settings: dict[tuple[Any, ...], list[_Entry]] = {}
    for seeds in grouped(results):
        names = seeds[0].rows[0].names
        label = str(names["defense"])
        trained = fingerprints_of(manifest, label)
        about = {**_of_audits([states[title] for title in trained]), **_published(trained.values())}
        about |= {"certificate": certificates[label], **shared}
        entry = _entry(seeds, about, trained.values(), claims)
        settings.setdefault(tuple(names[name] for name in SETTING), []).append(entry)
    return _frame([row for entries in settings.values() for row in _ranked(entries, confidence)])


def _entry(seeds: Sequence[Group], about: Mapping[str, Any], trained: Iterable[Any], claims: Sequence[Claim]) -> _Entry:
    """Return the row of a defense in one setting, from its groups, columns, fingerprints and claims."""
    row = worst_row(seeds, (_M,))
    attacked = row["attack"] == WORST
    columns = {name: row[name] for name in _COLUMNS if name in row} | dict(about)
    columns |= {f"worst_{end}": row[f"robust_{end}"] if attacked else float("nan") for end in ("mean", "low", "high")}
    columns |= dict(zip(("worst_attack", "worst_view"), _strongest(seeds), strict=True))
    columns["status"] = row["status"] if attacked else "no attacks"
    columns["compute"] = "; ".join(dict.fromkeys(filter(None, (r.compute for g in seeds for r in g.rows))))
    name, weights = name_and_weights(trained, str(row["dataset"]))
    found = foremost(claims, {**row, "status": columns["status"], "name": name, "weights": weights})
    left = points_on(found[0], name, points_of(seeds), claims) if found else NO_POINTS
    columns |= {**_of_claim(found), **dict(zip(POINTS_LEFT, left, strict=True))}
    ranks = columns["status"] == "ok" and columns["audit"] != "fail"
    return _Entry(columns, worst_side(seeds) if ranks else None)


def _of_claim(found: tuple[Claim, Verdict] | None) -> dict[str, Any]:
    """Return the columns on the claim of a defense."""
    if found is None:
        return dict.fromkeys(("claim", "claim_verdict", "claim_reason", "claim_evidence"), "")
    claim, verdict = found
    on = ", ".join(filter(None, (f"{claim.dataset} {claim.threat}".strip(), claim.network)))
    words = {"claim_verdict": verdict.word, "claim_reason": verdict.reason, "claim_evidence": claim.evidence}
    return {"claim": on, "claim_robust": claim.robust, **words}


def _strongest(seeds: Sequence[Group]) -> tuple[str, str]:
    """Return (attack, view) of the row that alone breaks the most images; empty if none breaks any.

    Of rows that break as many, the one under which fewer draws withstand. Images that are wrong without any attack do
    not count.
    """
    broken: dict[tuple[str, str], float] = {}
    withstood: dict[tuple[str, str], float] = {}
    for group in seeds:
        index = common([row.scores for row in group.needed]) if group.attacks and group.needed else ()
        for row in group.needed if len(index) else ():
            if row.attack == CLEAN:
                continue
            name, scores = (row.attack, str(row.names["view"])), row.scores.of(index)
            shares = (scores.withstood / np.maximum(scores.draws, 1))[~(scores.clean <= 0.5)]
            broken[name] = broken.get(name, 0) + float((shares < 0.5).sum())
            withstood[name] = withstood.get(name, 0) + float(shares.sum())
    name = max(broken, key=lambda of: (broken[of], -withstood[of]), default=("", ""))
    return name if broken.get(name) else ("", "")


def _ranked(entries: Sequence[_Entry], confidence: float) -> list[dict[str, Any]]:
    """Return the rows of one setting with their ranges of ranks, best first."""
    sides = [entry.side for entry in entries if entry.side is not None]
    ranges = iter(rank_ranges_of(sides, confidence=confidence))
    rows = []
    for entry in entries:
        low, high = next(ranges) if entry.side is not None else (pd.NA, pd.NA)
        rows.append(entry.columns | {"rank_low": low, "rank_high": high})
    return sorted(rows, key=lambda row: (row["rank_low"] is pd.NA, -np.nan_to_num(row["worst_mean"], nan=-1.0)))


def _of_audits(states: Sequence[AuditState]) -> dict[str, Any]:
    """Return the columns on the audits of all trainings of a defense."""
    found = [state.status for state in states] or ["none"]
    failed = dict.fromkeys(check for state in states for check in state.failed)
    version = min((state.version for state in states if state.version is not None), default=pd.NA)
    about = {"audit": next(s for s in _AUDITS if s in found), "audit_version": version}
    return about | {"audit_failed": "; ".join(failed)}


def _published(fingerprints: Any) -> dict[str, str]:
    """Return the columns on the paper of a defense, and the digests of its fingerprints."""
    name = next((f.get("name", "") for f in fingerprints), "")
    columns = {"paper": "", "url": "", "fingerprint": "; ".join(digest(f) for f in fingerprints)}
    if name in list_models() and card(name).url:
        about = card(name)
        columns |= {"paper": ", ".join(filter(None, (about.title, about.venue))), "url": about.url}
    return columns
