"""Read audits, certificates and runs of results folders as frames with fixed columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.analysis.columns import with_columns
from bench.analysis.public_names import public
from bench.evaluation.certificates.certificate import state_of
from bench.evaluation.certificates.stored import read as read_certificates
from bench.spec.cell import digest
from bench.store.audits import current_audits, version_of
from bench.store.kinds import NO_RESULTS, folder_named, kind_of, refuse_other_kind
from bench.store.manifest import read_manifest, read_runs
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json, JsonView

_OBJECT = "object"
_AUDITS = {
    **dict.fromkeys(("results", "defense", "fingerprint", "dataset", "norm", "eps", "budget"), "str"),
    **dict.fromkeys(("n_images", "seed", "audit_version"), "Int64"),
    **dict.fromkeys(("audit", "check", "status", "evidence"), "str"),
    **dict.fromkeys(("numbers", "images"), _OBJECT),
}
_CERTIFICATES = {
    **dict.fromkeys(("results", "defense", "fingerprint", "state", "check", "check_state"), "str"),
    "value": "float64",
    "limit": "float64",
    "least": "bool",
    **dict.fromkeys(("points", "left_out"), "int64"),
    "note": "str",
}
_RUNS = {
    **dict.fromkeys(("results", "run", "command", "commit"), "str"),
    "dirty": "boolean",
    **dict.fromkeys(("started", "finished"), "datetime64[us, UTC]"),
    "seconds": "float64",
    **dict.fromkeys(("threads", "workers", "cores"), "Int64"),
    **dict.fromkeys(("processor", "system", "device"), "str"),
    "versions": _OBJECT,
}


@with_columns
def load_audits(*results: str | Path) -> pd.DataFrame:
    """Read the audits of results folders, see `purebench audit`.

    Args:
        *results: results folders; one without audits adds no row.

    Returns:
        A row per folder, audited defense and check. Columns: those of `purebench columns load_audits`.

    Raises:
        UserError: no folder, results of another kind or none, or damaged audits.
    """
    folders = _evaluations(results, "load_audits")
    rows = [
        _finding(f, audit, finding) for f in folders for audit in current_audits(f) for finding in audit["findings"]
    ]
    return public(_frame(rows, _AUDITS))


def _finding(folder: Path, audit: Mapping[str, object], finding: JsonView) -> dict[str, object]:
    """Return the row of a check."""
    shown = {name: audit.get(name) for name in ("dataset", "norm", "eps", "budget", "seed")}
    about: Json = {"results": str(folder), "defense": audit["label"], "fingerprint": digest(audit["fingerprint"])}
    state = "pass" if audit["passed"] else "fail" if audit["failed"] else "not measurable"
    names = ("check", "status", "evidence", "numbers")
    found = {name: finding[name] for name in names} | {"images": tuple(finding["images"])}
    about |= {"audit": state, "audit_version": version_of(audit)}
    return shown | about | {"n_images": audit.get("images")} | found


@with_columns
def load_certificates(results: str | Path) -> pd.DataFrame:
    """Read the gradient certificates of a results folder, see `purebench certify`.

    Args:
        results: the folder; without certificates there are no rows.

    Returns:
        A row per defense and measurement. Columns: those of `purebench columns load_certificates`.

    Raises:
        UserError: results of another kind or none.
    """
    (folder,) = _evaluations([results], "load_certificates")
    titles = {digest(f): title for title, f in (read_manifest(folder).get("defenses") or {}).items()}
    rows = []
    for key, content in read_certificates(folder).items():
        about = {"results": str(folder), "defense": titles.get(key, ""), "fingerprint": key, "state": state_of(content)}
        note = content.get("error") or content.get("note") or ""
        empty = {"name": "", "value": float("nan"), "limit": float("nan"), "note": note, "state": state_of(content)}
        rows += [about | _measurement(check) for check in content.get("checks") or [empty]]
    return _frame(rows, _CERTIFICATES)


def _measurement(check: JsonView) -> dict[str, object]:
    """Return the columns of a measurement; earlier versions have stored no points."""
    columns = {"least": False, "points": 0, "left_out": 0, "note": ""} | dict(check)
    return columns | {"check": check["name"], "check_state": state_of(check)}


@with_columns
def load_runs(results: str | Path) -> pd.DataFrame:
    """Read what made a results folder: its commands, with code, time, versions and machine.

    Args:
        results: a results folder of any kind.

    Returns:
        A row per run, in order. Columns: those of `purebench columns load_runs`.

    Raises:
        UserError: no results there, or a damaged manifest.
    """
    folder = _with_results(results)
    rows = []
    for run in read_runs(folder):
        git, hardware = run.get("git") or {}, run.get("hardware") or {}
        about = {name: run.get(name) for name in ("command", "started", "finished", "seconds", "threads", "workers")}
        about |= {name: hardware.get(name) for name in ("processor", "cores", "system", "device")}
        about |= {"commit": git.get("commit"), "dirty": git.get("dirty"), "versions": run.get("versions") or {}}
        rows.append(about | {"results": str(folder), "run": run["id"]})
    return _frame(rows, _RUNS)


def _evaluations(results: Sequence[str | Path], loader: str) -> list[Path]:
    """Return the folders of boards and audits.

    Raises:
        UserError: there is none, or one holds results of another kind or none.
    """
    folders = [_with_results(folder) for folder in results]
    if not folders:
        raise UserError(f"{loader} needs a results folder, as results/digits-audit")
    for folder in folders:
        refuse_other_kind(folder, "load_results", "load_audits")
    return folders


def _with_results(folder: str | Path) -> Path:
    """Return a folder that holds results of any kind.

    Raises:
        UserError: it holds none.
    """
    path = folder_named(folder)
    if kind_of(path) is None:
        raise UserError(NO_RESULTS.format(path))
    return path


def _frame(rows: list[Json], columns: Mapping[str, str]) -> pd.DataFrame:
    """Return rows as a frame with these columns and types; a missing text is ""."""
    frame = pd.DataFrame(rows, columns=list(columns))
    texts = [name for name, kind in columns.items() if kind == "str"]
    frame[texts] = frame[texts].astype(object).fillna("")
    return frame.astype(dict(columns))
