"""Add a submitted row to the results folder of a board: prepared beside it, and put in its place when it is whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from bench.evaluation.certificates import stored as certificates
from bench.execution.merge.cells import stored_whole
from bench.execution.merge.facts import united_audits
from bench.spec.submission import CRATE, KEPT, RESULTS
from bench.store.audits import FOLDER, read_audits, write_audits
from bench.store.folder import Store, write_atomic
from bench.store.manifest import read_manifest, update_manifest
from bench.store.parts import CellRecord
from bench.store.reader import CHALLENGES, read_challenges, read_plan
from bench.submissions.check import examine
from bench.submissions.submission import Submission
from defenses.utils.errors import UserError
from defenses.utils.files import disk_errors, make_folder
from defenses.utils.json_values import Json
from defenses.utils.text import clean, counted, file_name

_OF_RUNS = ("runs", "plan", "sum")  # keys of a manifest that are written anew
_NOT_TAKEN = (".locks", "parts")  # of a board's folder, when it is copied
_THREAT = ("norm", "eps", "targets")


def add_row(zipped: Path, board: Path, finish: Callable[[Path], None] = lambda _: None) -> str:
    """Add a submission to a board, after all checks; where anything fails, the board's folder stays as it was.

    Args:
        zipped: the zip.
        board: results folder of the board.
        finish: writes what else belongs to the new folder, as tables.

    Returns:
        The label of the row.

    Raises:
        UserError: a check fails, or the folder cannot be written.
    """
    board = board.resolve()  # a link to a folder stays one
    with tempfile.TemporaryDirectory() as unpacked:
        found, row = examine(zipped, Path(unpacked), board)
        if found or row is None:
            more = f"; and {counted(len(found) - 1, 'more finding')}" if len(found) > 1 else ""
            text = f"{zipped} was not added: {found[0].check}: {clean(found[0].text)}{more}"
            raise UserError(f"{text} (purebench submit check {zipped} --to {board.name} shows all)")
        make_folder(board.parent, "make it writable")
        staged = board.with_name(f".{board.name}-{uuid.uuid4().hex}")
        try:
            with disk_errors(board.parent, "nothing was added", "make it writable"):
                stage(board, row, staged)
                _keep(row, staged / KEPT)
                finish(staged)
                shutil.rmtree(staged / ".locks", ignore_errors=True)
                _exchange(board, staged)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return row.label


def stage(board: Path, row: Submission, out: Path) -> None:
    """Write a results folder with the rows of a board and a submitted one.

    Args:
        board: results folder of the board.
        row: the submission, whose checks found nothing that keeps it from the board.
        out: the new folder.

    Raises:
        UserError: a damaged file of the board, or an audit with other outcomes there.
    """
    shutil.copytree(board, out, ignore=_top_level(board))
    (out / "parts").mkdir()
    for part in sorted((board / "parts").iterdir()):
        if part.is_dir() and not part.name.startswith("."):
            shutil.copytree(part, out / "parts" / part.name, copy_function=_linked)
    store, plan = Store(out), _united(read_plan(board / "plan.jsonl"), row.plan)
    store.take(stored_whole(row.results), [*row.plan, *row.challenges])
    kept = {line["key"]: line for line in [*read_challenges(board), *row.challenges]}
    for name, lines in (("plan.jsonl", plan), (CHALLENGES, kept.values())):
        if lines:
            write_atomic(out / name, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    manifest = read_manifest(board)
    facts: Json = {key: value for key, value in manifest.items() if key not in _OF_RUNS}
    facts["defenses"] = {**manifest.get("defenses", {}), **row.manifest["defenses"]}
    update_manifest(store, facts)
    known = {run["id"] for run in manifest.get("runs", [])}
    for run in row.manifest.get("runs", []):
        if run["id"] not in known:
            update_manifest(store, facts, run)
    measured = certificates.read(out)
    certificates.add(out, {k: c for k, c in certificates.read(row.results).items() if k not in measured})
    if read_audits(row.results):
        (out / FOLDER).mkdir(exist_ok=True)
        write_audits(out, united_audits([board, row.results]))


def _top_level(board: Path) -> Callable[[str, list[str]], list[str]]:
    """Return what `shutil.copytree` leaves out of a board's folder."""
    return lambda folder, names: [n for n in names if Path(folder) == board and n in _NOT_TAKEN]


def _linked(source: str, target: str) -> str:
    """Give a file of a part a second name, as parts are never written to; copy it where the disk has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _united(plan: list[CellRecord], row: list[CellRecord]) -> list[CellRecord]:
    """Return both plans, the row's cells of each threat after the board's."""

    def threat(line: CellRecord) -> tuple[object, ...]:
        return tuple(line[key] for key in _THREAT)  # type: ignore[literal-required]

    order = {name: at for at, name in enumerate(dict.fromkeys(map(threat, [*plan, *row])))}
    return sorted([*plan, *row], key=lambda line: order[threat(line)])


def _keep(row: Submission, folder: Path) -> None:
    """Copy what a row was submitted with, but its results and their crate: card, board, code, checksums."""
    name = f"{file_name(row.label)[:40] or 'row'}-{uuid.uuid5(uuid.NAMESPACE_URL, row.label).hex[:8]}"
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)  # of a row of this label that was withdrawn
    for file in sorted(row.folder.rglob("*")):
        path = file.relative_to(row.folder)
        if file.is_file() and path.parts[0] not in (RESULTS, CRATE):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / path)


def _exchange(board: Path, staged: Path) -> None:
    """Put a finished folder in the place of another; the other one stays where that fails."""
    old = board.with_name(f".{board.name}-old-{uuid.uuid4().hex}")
    os.rename(board, old)
    try:
        os.rename(staged, board)
    except BaseException:
        os.rename(old, board)
        raise
    shutil.rmtree(old, ignore_errors=True)
