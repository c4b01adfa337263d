"""Caveats of a results folder: failed audits and uncertified exact gradients. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.certificates.certificate import state_of
from bench.evaluation.certificates.stored import read
from bench.spec.cell import DEPLOYED, GIVEN, NULLS, digest
from bench.store.audits import SOFTMAX, read_audits
from bench.store.manifest import forced_defenses, read_manifest

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.results import Results


FAILED_AUDIT = "‡"  # marks of table rows
UNCERTIFIED = "†"


def caveats(folder: Path, results: Results) -> dict[str, list[str]]:
    """Return the caveats of each defense by label, with the marks of the tables.

    Args:
        folder: the results folder.
        results: its contents, from `read_results`.

    Returns:
        A list of sentences for every defense that has cells, empty without a caveat.

    Raises:
        UserError: its audits are damaged.
    """
    manifest = read_manifest(folder)
    texts: dict[str, list[str]] = {str(label): [] for label in results.cells["defense"].unique()}
    for title, checks in failures(folder, manifest).items():
        text = f"{FAILED_AUDIT} {title} fails the audit: {', '.join(checks)}"
        texts.setdefault(_label(title), []).append(text)
    for label, reason in uncertified(folder, results.cells, manifest).items():
        text = f"{UNCERTIFIED} {label}: exact gradients that nothing certifies ({reason})"
        texts.setdefault(label, []).append(text)
    return texts


_SEPARATOR = " | "  # of the column "warnings"; a warning itself may have a semicolon
CERTIFICATE = "gradient certificate: "  # in front of a reason in that column


def join_warnings(warnings: Iterable[str]) -> str:
    """Return the value of the column "warnings" of a row."""
    return _SEPARATOR.join(warnings)


def split_warnings(text: str) -> tuple[list[str], str]:
    """Return the warnings of an attack, and the reason why exact gradients are not certified, of a row's warnings."""
    attack, _, reason = text.partition(CERTIFICATE)
    return [warning for warning in attack.split(_SEPARATOR) if warning], reason


def reasons_of_frame(frame: pd.DataFrame) -> dict[str, str]:
    """Return the reasons why exact gradients are not certified, by label, of a frame with the column "warnings"."""
    pairs = frame[["defense", "warnings"]].drop_duplicates().itertuples(index=False)
    return {str(label): split_warnings(str(text))[1] for label, text in pairs if CERTIFICATE in str(text)}


def caveats_of_frame(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return the caveats of each defense by label, as far as the column "warnings" of `benchmark` has them.

    Args:
        frame: of `benchmark` or `load_results`.
    """
    if "warnings" not in frame:
        text = "the frame of load_results has no certificates and audits; name its folder to see them"
        return {str(label): [text] for label in frame["defense"].unique()}
    return {
        label: [f"{UNCERTIFIED} {label}: exact gradients that nothing certifies ({reason})"]
        for label, reason in reasons_of_frame(frame).items()
    }


def failures(results: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the failed audit checks of the defenses of a results folder.

    Args:
        results: the results folder.
        manifest: its manifest. Audits belong to the fingerprint of a defense, whatever its label. A defense that
            returns probabilities and was run with --force fails that check without an audit.

    Returns:
        Names of the failed checks by title of the defense, for the defenses that fail any.

    Raises:
        UserError: the audits are damaged.
    """
    failed: dict[str, dict[str, None]] = {}  # by digest of the fingerprint
    audits = read_audits(results)
    several = len({_threat(audit) for audit in audits}) > 1
    for audit in audits:
        checks = (f"{check} at {_threat(audit)}" if several else check for check in audit["failed"])
        failed.setdefault(digest(audit["fingerprint"]), {}).update(dict.fromkeys(checks))
    for fingerprint in forced_defenses(manifest):
        names = failed.setdefault(fingerprint, {})
        if SOFTMAX not in names:
            names[f"{SOFTMAX} (it returns probabilities, and was run with --force)"] = None
    fingerprints = _fingerprints(manifest) if failed else {}
    by_title = {title: tuple(failed.get(digest(f), ())) for title, f in fingerprints.items()}
    return {title: names for title, names in by_title.items() if names}


def _fingerprints(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fingerprints of the defenses by title; none if the manifest is damaged."""
    fingerprints = manifest.get("defenses")
    return fingerprints if isinstance(fingerprints, dict) else {}


def _threat(audit: Mapping[str, Any]) -> str:
    return f"{audit.get('norm')} {audit.get('eps')}"


def with_audit(frame: pd.DataFrame, failed: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    """Return a summary with a column "audit" of failed checks, if any: a CSV has no footnotes.

    Args:
        frame: a summary.
        failed: see `failures`.
    """
    by_label: dict[str, dict[str, None]] = {}
    for title, names in failed.items():
        by_label.setdefault(_label(title), {}).update(dict.fromkeys(names))
    return frame.assign(audit=["; ".join(by_label.get(d, ())) for d in frame["defense"]]) if failed else frame


def labels(failed: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return the labels of the defenses that fail, whatever their training seeds."""
    return {_label(title) for title in failed}


def _label(title: str) -> str:
    return title.partition(" (training seed")[0]


def uncertified(folder: Path, cells: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the reasons why exact gradients are not certified, by label of the defenses attacked through them.

    Args:
        folder: the results folder, which holds the certificates.
        cells: its cells, see `load_cells`.
        manifest: its manifest.
    """
    by_digest, fingerprints = read(folder), _fingerprints(manifest)
    attacked = ~cells["view"].isin((DEPLOYED, GIVEN)) & ~cells["attack"].isin(NULLS)
    exact = cells[(cells["gradient"] == "exact") & attacked]
    reasons: dict[str, str] = {}
    for label in dict.fromkeys(exact["defense"]):
        of_label = [f for title, f in fingerprints.items() if title == label or title.startswith(f"{label} (")]
        certificates = [by_digest.get(digest(f)) for f in of_label] or [None]
        if reason := next((r for r in map(_problem, certificates) if r), ""):
            reasons[label] = reason
    return reasons


def _problem(certificate: Any) -> str:
    """Return why a certificate does not hold; "" if it does."""
    if not isinstance(certificate, dict):
        return "no certificate"
    state = state_of(certificate)
    if state == "passed":
        return ""
    checks = [c for c in certificate.get("checks", ()) if state_of(c) == state]
    names = ", ".join(str(c.get("name")) for c in checks)
    if state == "not measurable":
        return f"{state}: {names} ({checks[0].get('note')})"
    return str(certificate.get("note") or f"fails: {certificate.get('error') or names}")
