"""Reduce a results folder to one defense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bench.analysis.caveats import fingerprints_of
from bench.evaluation.certificates import stored as certificates
from bench.execution.merge.cells import stored_whole
from bench.spec.cell import digest, label_of
from bench.store.audits import FOLDER, read_audits, write_audits
from bench.store.folder import Store, write_atomic
from bench.store.kinds import refuse_other_kind
from bench.store.manifest import check_manifest, read_manifest, update_manifest
from bench.store.parts import CellRecord, Stored
from bench.store.reader import CHALLENGES, read_challenges, read_plan
from defenses.utils.errors import UserError, unknown
from defenses.utils.json_values import Json

_OF_RUNS = ("runs", "plan", "sum")  # keys of a manifest that are written anew


def reduce_to(results: Path, label: str, out: Path) -> list[CellRecord]:
    """Write the results of one defense, and of nothing else, as a results folder.

    Args:
        results: the results folder of a board.
        label: of the defense; of several trainings all are taken.
        out: the new folder.

    Returns:
        The lines of its stored cells in the order of the plan, those of kept challenges apart.

    Raises:
        UserError: no results there or damaged ones, no such defense, or none of its cells is finished.
    """
    refuse_other_kind(results, "load_results")
    check_manifest(results)
    if not (results / "plan.jsonl").is_file() or not (results / "manifest.json").is_file():
        raise UserError(f"{results} is no results folder (it has no plan.jsonl or manifest.json); run a board first")
    whole, manifest = read_plan(results / "plan.jsonl"), read_manifest(results)
    plan = [line for line in whole if line["defense"] == label]
    if not plan:
        raise unknown("defense in these results", label, dict.fromkeys(line["defense"] for line in whole))
    kept = [line for line in read_challenges(results) if line.get("defense") == label]
    found = stored_whole(results)
    # labels are no part of a key: those of the plan are the current ones
    cells: Stored = {
        p["key"]: ({**found[p["key"]][0], **p}, found[p["key"]][1]) for p in [*plan, *kept] if p["key"] in found
    }
    if not any(p["key"] in cells for p in plan):
        raise UserError(f"none of the {len(plan)} cells of {label} is finished in {results}; run the board first")
    store = Store(out)
    store.take(cells, [*plan, *kept])
    for name, lines in (("plan.jsonl", plan), (CHALLENGES, kept)):
        if lines:
            write_atomic(out / name, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    trained = fingerprints_of(manifest, label)
    facts: Json = {key: value for key, value in manifest.items() if key not in _OF_RUNS}
    facts["defenses"] = {t: f for t, f in (manifest.get("defenses") or {}).items() if label_of(t) == label}
    update_manifest(store, facts)
    wrote = {line.get("run") for line, _ in cells.values()}
    for run in manifest.get("runs", []):
        if run["id"] in wrote:
            update_manifest(store, facts, run)
    keys = {digest(fingerprint) for fingerprint in trained.values()}
    certificates.add(out, {key: c for key, c in certificates.read(results).items() if key in keys})
    if audits := [audit for audit in read_audits(results) if digest(audit["fingerprint"]) in keys]:
        (out / FOLDER).mkdir()
        write_audits(out, audits)
    shutil.rmtree(out / ".locks", ignore_errors=True)
    return [cells[p["key"]][0] for p in plan if p["key"] in cells]
