"""Caveats of a results folder: failed audits and uncertified exact gradients. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.evaluation.certificates.certificate import state_of
from bench.evaluation.certificates.stored import read
from bench.spec.cell import NO_GRADIENT, digest, label_of
from bench.store.audits import SOFTMAX, current_audits, version_of
from bench.store.manifest import Manifest, forced_defenses, read_manifest
from defenses.utils.json_values import Json, JsonView

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.results import Results


FAILED_AUDIT, RESUMED = "‡", "§"  # marks of table rows
UNCERTIFIED = "†"
CERTIFIED, NOT_NEEDED = "certified", "not needed"  # of exact gradients; any other text is a reason


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
        texts.setdefault(label_of(title), []).append(text)
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


def failures(results: Path, manifest: Manifest) -> dict[str, tuple[str, ...]]:
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
    states = audit_states(current_audits(results), manifest)
    return {title: state.failed for title, state in states.items() if state.failed}


@dataclass(frozen=True)
class AuditState:
    """Outcome of the audits of a defense.

    Args:
        status: "fail" if one fails, else "not measurable" if one is, else "pass"; "none" without an audit.
        failed: names of the failed checks.
        version: the earliest of the audits, see `bench.store.audits.version_of`; None without an audit.
    """

    status: Literal["pass", "fail", "not measurable", "none"]
    failed: tuple[str, ...] = ()
    version: int | None = None


def audit_states(audits: Sequence[Mapping[str, object]], manifest: Manifest) -> dict[str, AuditState]:
    """Return what audits say of the defenses of a results folder, by title.

    Args:
        audits: see `bench.store.audits.current_audits`; of this folder or of others.
        manifest: of the folder, see `failures`.
    """
    by_defense: dict[str, list[Mapping[str, object]]] = {}
    several = len({_threat(audit) for audit in audits}) > 1
    for audit in audits:
        by_defense.setdefault(digest(audit["fingerprint"]), []).append(audit)
    forced = forced_defenses(manifest)
    states = {}
    for title, fingerprint in _fingerprints(manifest).items():
        key = digest(fingerprint)
        states[title] = _state(by_defense.get(key, ()), several=several, forced=key in forced)
    return states


def _state(audits: Sequence[JsonView], *, several: bool, forced: bool) -> AuditState:
    """Return what the audits of one defense say.

    Args:
        audits: of the defense.
        several: True to name the threat of a failed check.
        forced: the defense was run with --force although it returns probabilities.
    """
    failed = {f"{check} at {_threat(a)}" if several else check: None for a in audits for check in a["failed"]}
    if forced and SOFTMAX not in failed:
        failed[f"{SOFTMAX} (it returns probabilities, and was run with --force)"] = None
    version = min(map(version_of, audits), default=None)
    if failed:
        return AuditState("fail", tuple(failed), version)
    if not audits:
        return AuditState("none")
    return AuditState("pass" if all(audit["passed"] for audit in audits) else "not measurable", version=version)


def _fingerprints(manifest: Mapping[str, object]) -> Mapping[str, object]:
    """Return the fingerprints of the defenses by title; none if the manifest is damaged."""
    fingerprints = manifest.get("defenses")
    return fingerprints if isinstance(fingerprints, dict) else {}


def fingerprints_of(manifest: JsonView, label: str) -> Json:
    """Return the fingerprints of the trainings of a defense by title.

    Args:
        manifest: of the results folder.
        label: of the defense in tables.
    """
    return {title: f for title, f in _fingerprints(manifest).items() if label_of(title) == label}


def _threat(audit: Mapping[str, object]) -> str:
    return f"{audit.get('norm')} {audit.get('eps')}"


def with_audit(frame: pd.DataFrame, failed: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    """Return a summary with a column "audit" of failed checks, if any: a CSV has no footnotes.

    Args:
        frame: a summary.
        failed: see `failures`.
    """
    by_label: dict[str, dict[str, None]] = {}
    for title, names in failed.items():
        by_label.setdefault(label_of(title), {}).update(dict.fromkeys(names))
    return frame.assign(audit=["; ".join(by_label.get(d, ())) for d in frame["defense"]]) if failed else frame


def labels(failed: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return the labels of the defenses that fail, whatever their training seeds."""
    return {label_of(title) for title in failed}


def uncertified(folder: Path, cells: pd.DataFrame, manifest: Manifest) -> dict[str, str]:
    """Return the reasons why exact gradients are not certified, by label of the defenses attacked through them.

    Args:
        folder: the results folder, which holds the certificates.
        cells: its cells, see `load_cells`.
        manifest: its manifest.
    """
    states = certificate_states(folder, cells, manifest)
    return {label: state for label, state in states.items() if state not in (CERTIFIED, NOT_NEEDED)}


def certificate_states(folder: Path, cells: pd.DataFrame, manifest: Manifest) -> dict[str, str]:
    """Return what certificates say of the exact gradients of each defense, by label.

    Args:
        folder: the results folder, which holds the certificates.
        cells: its cells, see `load_cells`.
        manifest: its manifest.

    Returns:
        `CERTIFIED`; `NOT_NEEDED` where no attack uses exact gradients; else the reason why nothing certifies them.
    """
    by_digest = read(folder)
    exact = set(cells[(cells["gradient"] == "exact") & ~cells["view"].isin(NO_GRADIENT)]["defense"])
    states: dict[str, str] = {}
    for label in dict.fromkeys(cells["defense"]):
        keys = [digest(f) for f in fingerprints_of(manifest, label).values()]
        reason = next((r for r in map(_problem, [by_digest.get(key) for key in keys] or [None]) if r), "")
        states[label] = (reason or CERTIFIED) if label in exact else NOT_NEEDED
    return states


def _problem(certificate: object) -> str:
    """Return why a certificate does not hold; "" if it does."""
    if not isinstance(certificate, dict):
        return "no certificate"
    state = state_of(certificate)
    if state == "passed":
        return ""
    checks = [c for c in certificate.get("checks", ()) if state_of(c) == state]
    names = ", ".join(str(c.get("name")) for c in checks)
    if certificate.get("note"):
        return str(certificate["note"])
    if state == "not measurable":
        return f"{state}: {names} ({checks[0].get('note')})"
    return f"fails: {certificate.get('error') or names}"
