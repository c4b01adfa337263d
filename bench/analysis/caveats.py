"""What the audits of a results folder say of the rows of its tables. Nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.certificates.stored import MARK as UNCERTIFIED
from bench.evaluation.certificates.stored import digest
from defenses.utils.checksums import is_whole
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from bench.board.board import Board
    from bench.report.table import Table

FOLDER, NAME, SCHEMA = "audit", "audit.json", 1
MARK = "‡"
SOFTMAX = "logits and no softmax"  # a check that a run makes too


def read_audits(results: Path) -> list[dict[str, Any]]:
    """The audits of a results folder, as JSON has them; none where there is no file.

    Raises:
        UserError: the file is damaged, or of a newer version.
    """
    file = results / FOLDER / NAME
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not is_whole(said) or not isinstance(said.get("audits"), list):
        raise UserError(f"{file} is damaged; remove it and run purebench audit again, which repeats nothing")
    if said.get("schema", 0) > SCHEMA:
        raise UserError(f"{file} is of a newer version; use the version of purebench that wrote it")
    return list(said["audits"])


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
    for seen in _insisted(manifest):
        names = failed.setdefault(seen, {})
        if SOFTMAX not in names:
            names[f"{SOFTMAX} (it returns probabilities, and was run with --force)"] = None
    stated = manifest.get("defenses")
    fingerprints = stated if failed and isinstance(stated, dict) else {}
    found = {title: tuple(failed.get(digest(f), ())) for title, f in fingerprints.items()}
    return {title: names for title, names in found.items() if names}


def _threat(said: Mapping[str, Any]) -> str:
    return f"{said.get('norm')} {said.get('eps')}"


def taken(board: Board, manifest: Mapping[str, Any]) -> set[str]:
    """The titles of a board's defenses that earlier runs of its folder took although they return probabilities."""
    seen = _insisted(manifest)
    return {d.title for d in board.defenses if digest(d.fingerprint) in seen}


def _insisted(manifest: Mapping[str, Any]) -> set[str]:
    return {said for run in manifest.get("runs", []) for said in run.get("probabilities", {}).values()}


def flagged(table: Table, failed: Mapping[str, tuple[str, ...]]) -> Table:
    """A table in which the defenses that fail their audit have a mark, and a footnote says which checks.

    Args:
        table: with a column "defense".
        failed: the names of the checks, by title; the mean over trainings is marked where one of them fails.
    """
    if not failed or "defense" not in table.columns:
        return table
    at, marked = table.columns.index("defense"), failed.keys() | labels(failed)

    def shown(name: str) -> str:
        return f"{name} {MARK}" if name.removesuffix(f" {UNCERTIFIED}") in marked else name

    rows = tuple((*r[:at], shown(r[at]), *r[at + 1 :]) for r in table.rows)
    text = "fails the audit, so its numbers have no rank"
    notes = tuple(f"{MARK} {title} {text}: {', '.join(names)}" for title, names in failed.items())
    return replace(table, rows=rows, footnotes=(*table.footnotes, *notes))


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
