"""What the audits of a results folder say of the rows of its tables. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.certificates.stored import read
from bench.spec.cell import NULLS, digest
from bench.store.audits import SOFTMAX, read_audits
from bench.store.manifest import forced_defenses, read_manifest

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.results import Results


FAILED_AUDIT = "‡"  # marks of table rows
UNCERTIFIED = "†"


def caveats(folder: Path, results: Results) -> dict[str, list[str]]:
    """Label of a defense -> what speaks against its rows, with the marks of the tables.

    Args:
        folder: the results folder.
        results: what `read_results` gave of it.

    Raises:
        UserError: its audits are damaged.
    """
    manifest = read_manifest(folder)
    said: dict[str, list[str]] = {str(label): [] for label in results.cells["defense"].unique()}
    for title, checks in failures(folder, manifest).items():
        label = title.partition(" (training seed")[0]
        said.setdefault(label, []).append(f"{FAILED_AUDIT} {title} fails the audit: {', '.join(checks)}")
    for label, reason in uncertified(folder, results.cells, manifest).items():
        said.setdefault(label, []).append(f"{UNCERTIFIED} {label}: exact gradients that nothing certifies ({reason})")
    return said


def failures(results: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The checks that defenses fail, by their titles.

    Args:
        results: the results folder.
        manifest: of it; audits are found by the fingerprint of a defense, whatever it was called. What a run was told
            to take although it returns probabilities (--force) fails that check without an audit.

    Raises:
        UserError: the audits are damaged.
    """
    failed: dict[str, dict[str, None]] = {}
    audits = read_audits(results)
    several = len({_threat(said) for said in audits}) > 1
    for said in audits:
        checks = (f"{check} at {_threat(said)}" if several else check for check in said["failed"])
        failed.setdefault(digest(said["fingerprint"]), {}).update(dict.fromkeys(checks))
    for seen in forced_defenses(manifest):
        names = failed.setdefault(seen, {})
        if SOFTMAX not in names:
            names[f"{SOFTMAX} (it returns probabilities, and was run with --force)"] = None
    stated = manifest.get("defenses")
    fingerprints = stated if failed and isinstance(stated, dict) else {}
    found = {title: tuple(failed.get(digest(f), ())) for title, f in fingerprints.items()}
    return {title: names for title, names in found.items() if names}


def _threat(said: Mapping[str, Any]) -> str:
    return f"{said.get('norm')} {said.get('eps')}"


def with_audit(frame: pd.DataFrame, failed: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    """A summary with a column "audit" that names the failed checks, where there are any: a CSV has no footnotes."""
    by_label: dict[str, dict[str, None]] = {}
    for title, names in failed.items():
        by_label.setdefault(_label(title), {}).update(dict.fromkeys(names))
    return frame.assign(audit=["; ".join(by_label.get(d, ())) for d in frame["defense"]]) if failed else frame


def labels(failed: Mapping[str, tuple[str, ...]]) -> set[str]:
    """What the defenses that fail are called in tables, whatever their training."""
    return {_label(title) for title in failed}


def _label(title: str) -> str:
    return title.partition(" (training seed")[0]


def uncertified(folder: Path, cells: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Label -> why the exact gradients of a defense are not certified, for the defenses that have rows of them."""
    known, fingerprints = read(folder), manifest.get("defenses")
    looks = ~cells["view"].isin(("deployed", "given")) & ~cells["attack"].isin(NULLS)
    exact = cells[(cells["gradient"] == "exact") & looks]
    reasons: dict[str, str] = {}
    for label in dict.fromkeys(exact["defense"]):
        stated = fingerprints if isinstance(fingerprints, dict) else {}
        mine = {key: value for key, value in stated.items() if key == label or key.startswith(f"{label} (")}
        found = [known.get(digest(f)) for f in mine.values()] or [None]
        if reason := next((r for r in map(_problem, found) if r), ""):
            reasons[label] = reason
    return reasons


def _problem(certificate: Any) -> str:
    if not isinstance(certificate, dict):
        return "no certificate"
    if certificate.get("passed") is True:
        return ""
    names = [str(c.get("name")) for c in certificate.get("checks", ()) if not c.get("passed")]
    return str(certificate.get("note") or f"fails: {certificate.get('error') or ', '.join(names)}")
