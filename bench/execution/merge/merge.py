"""Write one results folder of several, as if one machine had run everything."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.evaluation.certificates import stored as certificates
from bench.execution.merge.cells import chosen, stored_whole
from bench.execution.merge.facts import (
    absent_shards,
    check_same_board,
    first_of,
    united_audits,
    united_certificates,
    united_facts,
    united_runs,
)
from bench.store.audits import FOLDER, write_audits
from bench.store.folder import Store, disk_errors, write_atomic
from bench.store.kinds import refuse_other_kind
from bench.store.manifest import Manifest, check_manifest, read_manifest, update_manifest
from bench.store.parts import CellRecord
from bench.store.reader import CHALLENGES, read_challenges, read_plan
from defenses.utils.errors import UserError
from defenses.utils.files import make_folder, no_empty_folder
from defenses.utils.text import counted

_LIST = "indices.json"  # of images that were given to `purebench judge`
_PLAN = ("key", "defense", "attack", "view", "norm", "eps", "block", "images")  # that a line has at least
_RAW = "raw"  # measurements of audits, from which they go on


@dataclass(frozen=True)
class MergedCells:
    """Numbers of cells of a merge.

    Args:
        stored: in the new folder.
        shared: of these, in more than one folder.
        missing: planned, in none.
        shards: without which the board is not whole, as "3/16".
    """

    stored: int
    shared: int
    missing: int
    shards: Sequence[str]


def merge_folders(folders: Sequence[Path], out: Path, finish: Callable[[Path], None] = lambda _: None) -> MergedCells:
    """Write one results folder of several of the same board; nothing is left where that fails.

    Args:
        folders: results folders, in any order.
        out: the new folder; absent or empty.
        finish: writes what else belongs to the folder, as tables.

    Raises:
        UserError: no results, damaged results, another board, cells that do not agree, or an `out` that cannot be
            written.
    """
    _check_out(out)
    for folder in folders:
        _check_input(folder)
    manifests = {folder: read_manifest(folder) for folder in folders}
    ordered = sorted(folders, key=lambda folder: _order(manifests[folder]))  # no matter how they were named
    plans = {folder: _plan(folder / "plan.jsonl") for folder in ordered}
    for folder in ordered[1:]:
        check_same_board(ordered[0], folder, plans, manifests)
    runs = united_runs(manifests[folder] for folder in ordered)
    try:
        found = [stored_whole(folder) for folder in ordered]
        cells, differing = chosen(found, {run["id"]: run.get("started", "") for run in runs})
        if differing:
            raise UserError(
                f"{counted(len(differing), 'cell')} of the same key differ between the folders in records, draws or "
                f"images: {first_of(differing)}; see purebench diff, and verify which is right"
            )
        with no_empty_folder(out.parent):
            make_folder(out.parent)
            temporary = out.with_name(f".{out.name}-{uuid.uuid4().hex}")
            try:
                store, plan = Store(temporary), plans[ordered[0]]
                store.take(cells, plan)
                _write_facts(store, ordered, plan, [manifests[folder] for folder in ordered])
                finish(temporary)
                shutil.rmtree(temporary / ".locks", ignore_errors=True)
                _rename(temporary, out)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} vanished while it was read; repeat the command") from None
    shared = sum(sum(key in folder for folder in found) > 1 for key in cells)
    missing = sum(line["key"] not in cells for line in plans[ordered[0]])
    return MergedCells(len(cells), shared, missing, absent_shards(runs) if missing else ())


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder with --out")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; choose another folder with --out")


def _check_input(folder: Path) -> None:
    """Refuse what is no undamaged results folder of a board."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    refuse_other_kind(folder, "load_results")
    check_manifest(folder)
    for name in ("plan.jsonl", "manifest.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no results folder (it has no {name}); run a board first")


def _plan(file: Path) -> list[CellRecord]:
    """Return the lines of a plan; refuse a file that is none."""
    lines = read_plan(file)
    if not all(isinstance(line, dict) and line.keys() >= {*_PLAN} for line in lines):
        raise UserError(f"{file} is damaged; run the board again, which writes it anew")
    return lines


def _order(manifest: Manifest) -> tuple[str, str]:
    """Return the key of a folder in the order of merging: its first run, then its whole manifest."""
    first = min((run.get("started", "") for run in manifest.get("runs", [])), default="")
    return first, json.dumps(manifest, sort_keys=True)


def _write_facts(
    store: Store, folders: Sequence[Path], plan: Sequence[CellRecord], manifests: Sequence[Manifest]
) -> None:
    """Write plan, manifest, certificates, audits and the list of given images."""
    out = store.folder
    write_atomic(out / "plan.jsonl", "".join(json.dumps(line, sort_keys=True) + "\n" for line in plan))
    facts = united_facts(manifests)
    update_manifest(store, facts)
    for run in united_runs(manifests):
        update_manifest(store, facts, run)
    certificates.add(out, united_certificates(folders))
    if audits := united_audits(folders):
        (out / FOLDER).mkdir()
        write_audits(out, audits)
    lists = {(folder / _LIST).read_bytes() for folder in folders if (folder / _LIST).is_file()}
    if len(lists) > 1:
        raise UserError(f"{_LIST} differs between the folders: they judge other images")
    for content in lists:
        write_atomic(out / _LIST, content)
    kept = {line["key"]: line for folder in folders for line in read_challenges(folder)}
    if kept:
        write_atomic(out / CHALLENGES, "".join(json.dumps(line, sort_keys=True) + "\n" for line in kept.values()))
    _copy_raw(folders, out)


def _copy_raw(folders: Sequence[Path], out: Path) -> None:
    """Copy the measurements of audits, so that a further audit repeats none; the first folder's stand."""
    for folder in folders:
        root = folder / FOLDER / _RAW
        for file in sorted(root.rglob("*.json")):
            target = out / FOLDER / _RAW / file.relative_to(root)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(target, file.read_bytes())


def _rename(temporary: Path, out: Path) -> None:
    """Give a finished folder its name."""
    with disk_errors(out):
        with suppress(FileNotFoundError):
            out.rmdir()  # an empty one
        try:
            os.replace(temporary, out)
        except OSError as error:
            raise UserError(f"cannot write {out} ({error.strerror}); choose another folder with --out") from error
