"""Judge the stored images of a results folder again, with today's code, weights and libraries; nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.audit.reproduction.cell_verifier import CellVerifier, VerifyOptions
from bench.audit.reproduction.report import Verification, VerificationRow
from bench.store.environment import RunRecord, versions
from bench.store.manifest import Manifest, check_schema, read_manifest
from bench.store.parts import CellRecord, Stored, sha256, stored
from bench.store.reader import read_challenges
from defenses.utils.errors import UserError, unknown

__all__ = ["VerifyOptions", "verify"]

_PLAN_KEYS = {"key", "defense", "attack", "view", "norm", "eps"}


def verify(folder: Path, options: VerifyOptions, progress: Callable[[str], None] = lambda _: None) -> Verification:
    """Judge stored images again.

    Args:
        folder: of results; it may be read-only.
        options: defenses, sample and roots.
        progress: called with the title of every row.

    Raises:
        UserError: no results, results of a newer version, or an unknown defense.
    """
    check_schema(folder)
    result = Verification(sample=options.sample)
    manifest = read_manifest(folder)
    plan, lines = _read_lines(folder, manifest, result)
    labels = list(dict.fromkeys(p["defense"] for p in plan))
    for label in options.defenses:
        if label not in labels:
            raise unknown("defense in these results", label, labels)
    selection = [p for p in plan if not options.defenses or p["defense"] in options.defenses]
    result.missing = sum(p["key"] not in lines for p in selection)
    # labels are no part of a key: those of the plan are the current ones
    done: list[tuple[CellRecord, Path]] = [
        ({**lines[p["key"]][0], **p}, lines[p["key"]][1]) for p in selection if p["key"] in lines
    ]
    result.failed = sum(line["status"] != "ok" for line, _ in done)
    runs = _runs(manifest, [line for line, _ in done])
    result.environment = _environment(runs, options.device)
    verifier = CellVerifier(options, result, threads=max((run.get("threads") or 1 for run in runs), default=1))
    rows: dict[tuple[str, str, str, str], list[tuple[CellRecord, Path]]] = {}
    for line, part in done:
        if line["status"] == "ok":
            name = (line["defense"], line["attack"], line["view"], f"{line['norm']} {line['eps']}")
            rows.setdefault(name, []).append((line, part))
    for name, cells in rows.items():
        progress(" | ".join(name))
        row = VerificationRow(name)
        for line, part in cells:
            verifier.verify(line, part, row)
        if row.total.images:
            result.rows.append(row)
    return result


def _read_lines(folder: Path, manifest: Manifest, result: Verification) -> tuple[list[CellRecord], Stored]:
    """Return (the plan, the stored lines and their parts by key); damage becomes a finding."""
    path = folder / "plan.jsonl"
    try:
        plan = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError):
        plan = [None]
    if not all(isinstance(p, dict) and p.keys() >= _PLAN_KEYS for p in plan):
        raise UserError(f"{path} is damaged; run the board again, which writes it anew")
    if not manifest:
        result.findings.append("manifest.json is missing or damaged: nothing is known of versions and threads")
    elif manifest.get("plan") and manifest["plan"] != sha256(path):
        result.findings.append("plan.jsonl is not the one that the manifest names")

    def damaged(part: Path, problem: str) -> None:
        result.findings.append(f"{part.name}: {problem}; its cells cannot be judged")

    return plan + read_challenges(folder), stored(folder / "parts", damaged)


def _runs(manifest: Manifest, lines: Iterable[CellRecord]) -> list[RunRecord]:
    """Return the runs of a manifest that wrote the lines."""
    ids = {line.get("run") for line in lines}
    return [run for run in manifest.get("runs", []) if run["id"] in ids]


def _environment(runs: list[RunRecord], device: str) -> list[str]:
    """Return the libraries and devices of the runs that differ from the current ones, a line each."""
    current, lines = versions(), []
    names = {name for run in runs for name in run.get("versions", {})}
    for name in sorted(names):
        then = sorted({str(run["versions"].get(name)) for run in runs if run.get("versions")})
        if then != [str(current.get(name))]:
            lines.append(f"{name} {' and '.join(then)} then, {current.get(name, 'not installed')} now")
    devices = sorted({str((run.get("hardware") or {}).get("device", "cpu")) for run in runs})
    if devices and devices != [device]:
        lines.append(f"device {' and '.join(devices)} then, {device} now")
    return lines
