"""Check a submission without running anything of it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from bench.execution.merge.facts import first_of
from bench.spec.cell import digest, label_of
from bench.spec.submission import BOARD, CODE, CRATE, DESCRIPTION, RESULTS
from bench.store.audits import VERSION, read_audits
from bench.store.kinds import refuse_other_kind
from bench.store.manifest import check_manifest, read_manifest
from bench.store.parts import FILES, SUMS, sha256, stored
from bench.store.reader import CHALLENGES, read_challenges, read_plan
from bench.submissions import against, cell_checks
from bench.submissions.archive import unpack
from bench.submissions.board_file import board_of
from bench.submissions.card import card_problems
from bench.submissions.cells import CellData, CleanImages, cells_of, clean_images
from bench.submissions.code import plugins, problems, unlisted
from bench.submissions.packed_crate import crate_problems
from bench.submissions.submission import Finding, Submission, described, files_of
from bench.submissions.tables import table_problems
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json
from defenses.utils.text import counted

_COLUMNS = {"key", "defense", "attack", "view", "norm", "eps", "targets", "block", "images", "stochastic", "seed"}
_COLUMNS |= {"dataset", "split", "indices", "budget", "knowledge", "minimisation"}
_COLUMNS |= {"draws", "selection"}


class Examined:
    """Submission under examination, whose arrays are read once.

    Args:
        row: the unpacked submission.
        board: results folder of the board; None: none is given.
        data_root: folder of data sets.
    """

    def __init__(self, row: Submission, board: Path | None, data_root: Path | None):
        self.row, self.board, self.data_root = row, board, data_root

    @cached_property
    def cells(self) -> list[CellData]:
        """Return its finished cells."""
        return cells_of(self.row.results)

    @cached_property
    def clean(self) -> CleanImages:
        """Return the clean images."""
        return clean_images(self.row.plan, self.board, self.data_root)


Check = Callable[[Examined], Iterable[str]]


def examine(
    zipped: Path, folder: Path, board: Path | None = None, *, data_root: Path | None = None
) -> tuple[list[Finding], Submission | None]:
    """Unpack a submission and make all checks; no code of it runs.

    Args:
        zipped: the zip.
        folder: an empty folder, which gets its files.
        board: results folder of the board that the row is to join; None: the row by itself.
        data_root: folder of data sets; without a board clean images are read there.

    Returns:
        What fails, in the order of the checks, and the submission; None where its results cannot be read.

    Raises:
        UserError: it is no submission, or the board's folder holds no results of attacks.
    """
    if board is not None:
        check_board(board)
    if faults := unpack(zipped, folder):
        return [Finding("zip", fault) for fault in faults], None
    description = described(folder, str(zipped))
    if faults := list(_file_problems(folder, description)):
        return [Finding("files", fault) for fault in faults], None
    row, faults = _opened(folder, str(description.get("label")))
    found = [Finding("results", fault) for fault in faults]
    if row is None:
        return found, None
    examined = Examined(row, board, data_root)
    for name, check in FIRST.items():
        if faults := list(_guarded(check, examined)):
            return [*found, *(Finding(name, fault) for fault in faults)], None
    if board is not None and (elsewhere := list(_elsewhere(examined))):
        return [*found, *elsewhere], row
    others = {name: check for name, check in OF_ROW.items() if name not in FIRST}
    for name, check in {**others, **(OF_BOARD if board is not None else {})}.items():
        found += [Finding(name, fault) for fault in _guarded(check, examined)]
    return found, row


def _elsewhere(examined: Examined) -> Iterator[Finding]:
    """Yield why a row belongs to another board or to other images, beside which no further check says anything."""
    images = list(_guarded(OF_BOARD["same images"], examined))
    if images or against.is_another(examined.row, examined.board or Path()):
        yield from (Finding("same board", fault) for fault in _guarded(OF_BOARD["same board"], examined))
        yield from (Finding("same images", fault) for fault in images)


def check_board(board: Path) -> None:
    """Refuse a folder without results of a board.

    Raises:
        UserError: there is none, it holds something else, or it is damaged.
    """
    if not (board / "plan.jsonl").is_file() or not (board / "manifest.json").is_file():
        raise UserError(f"{board} is no results folder (it has no plan.jsonl or manifest.json); run a board first")
    refuse_other_kind(board, "load_results")
    check_manifest(board)


def _guarded(check: Check, examined: Examined) -> Iterator[str]:
    """Yield what a check finds; values of another form than a run writes are a finding too."""
    try:
        yield from check(examined)
    except UserError as error:
        yield from map(str, error.args)
    except Exception as error:  # whatever a file of others holds
        yield f"its values are not those that a run writes ({type(error).__name__}: {error})"


def _file_problems(folder: Path, description: Json) -> Iterator[str]:
    files, listed = files_of(folder), description["files"]
    for name, content in files.items():
        if not _belongs(name):
            yield f"{name} is no part of a submission"
        elif name not in listed and name != DESCRIPTION:
            yield f"{name} is not listed in {DESCRIPTION}"
        elif name in listed and isinstance(content, Path):
            if content.stat().st_size != listed[name]["size"]:
                yield f"{name} has {content.stat().st_size:,} bytes, not {listed[name]['size']:,}"
            elif sha256(content) != listed[name]["sha256"]:
                yield f"{name} has another SHA-256 than {DESCRIPTION} says"
    yield from (f"{name} is listed in {DESCRIPTION} and missing" for name in listed if name not in files)


def _belongs(name: str) -> bool:
    """Return True if a submission may have a file of this name."""
    top, *rest = name.split("/")
    if top == RESULTS:
        whole = ("plan.jsonl", CHALLENGES, "manifest.json", "certificates.json", "audit/audit.json")
        is_part = len(rest) == 3 and rest[0] == "parts" and rest[1].startswith(("all-", "cell-"))
        return "/".join(rest) in whole or (is_part and rest[2] in (*FILES, SUMS))
    return (top == CODE and bool(rest)) or name in (DESCRIPTION, "card.toml", BOARD, CRATE)


def _opened(folder: Path, label: str) -> tuple[Submission | None, list[str]]:
    """Return the submission, and what is wrong with its results; None where they cannot be read."""
    results, faults = folder / RESULTS, list[str]()
    try:
        check_manifest(results)
        manifest, plan = read_manifest(results), read_plan(results / "plan.jsonl")
        cells = stored(results / "parts", lambda part, problem: faults.append(f"{part.name}: {problem}"))
        kept = read_challenges(results)
        if not manifest or not plan or not all(isinstance(p, dict) and p.keys() >= _COLUMNS for p in [*plan, *kept]):
            return None, ["the manifest or the plan is missing or damaged"]
        row = Submission(folder, label, plan, manifest, cells, kept)
        faults += _result_problems(row)
    except Exception as error:  # whatever a file of others holds
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return None, [*faults, f"manifest, plan or parts cannot be read: {told}".replace(f"{folder}/", "")]
    return (row if cells else None), faults


def _result_problems(row: Submission) -> Iterator[str]:
    """Yield what keeps results from being those of one defense, finished without an error."""
    named = {label_of(title) for title in row.manifest.get("defenses") or {}}
    planned = [*row.plan, *row.challenges]
    labels = named | {str(line["defense"]) for line in planned}
    if not named:
        yield "the manifest names no defense"
    elif labels != {row.label}:
        yield f"it holds {', '.join(sorted(labels))}, and must hold {row.label} alone"
    if foreign := row.cells.keys() - {line["key"] for line in planned}:
        yield f"{counted(len(foreign), 'stored cell')} not in its plan"
    if missing := [p for p in planned if p["key"] not in row.cells]:
        yield f"{counted(len(missing), 'cell')} not run: {first_of(missing)}"
    failed = [line for line in [*row.lines, *row.kept] if line["error"] and line["status"] != "unsupported"]
    yield from (f"{first_of([line])} failed: {line['error']}" for line in failed)


def _keys(row: Submission) -> Iterator[str]:
    yield from cell_checks.key_problems([*row.lines, *row.kept])
    yield from cell_checks.challenge_problems(row.kept, row.lines)


def _board(examined: Examined) -> Iterator[str]:
    row = examined.row
    file = row.folder / BOARD
    if not file.is_file():
        yield f"{BOARD} is missing"
        return
    packed, made = tomllib.loads(file.read_text(encoding="utf-8")), board_of(row.manifest, row.label, row.lines)
    if other := [key for key in {**made, **packed} if made.get(key) != packed.get(key)]:
        yield f'"{other[0]}" of {BOARD} is not that of the cells'
    prints = {digest(f) for f in row.manifest["defenses"].values()}
    if prints != {digest(line["identity"]["defense"]) for line in row.lines}:
        yield "the manifest describes another defense than the cells"


def _audit(examined: Examined) -> Iterator[str]:
    row = examined.row
    audits = read_audits(row.results)
    for title, fingerprint in row.manifest["defenses"].items():
        own = [audit for audit in audits if digest(audit["fingerprint"]) == digest(fingerprint)]
        if not own:
            yield f"{title} has no audit; run purebench audit on the board, and pack the row again"
        for audit in own:
            if audit.get("outdated"):
                yield f"the audit of {title} is of {audit['outdated']}; run purebench audit again"
            elif audit.get("version") != VERSION:
                then = audit.get("version", "none")
                yield f"the audit of {title} is of version {then}, not {VERSION}; run purebench audit again"


def _code(examined: Examined) -> Iterator[str]:
    folder = examined.row.code
    files = {name: file.read_bytes() for name, file in files_of(folder).items() if isinstance(file, Path)}
    yield from (f"no cell lists the code of {name}; run the board again" for name in unlisted(examined.row.lines))
    yield from problems(plugins(examined.row.lines), files)


OF_ROW: dict[str, Check] = {
    "keys": lambda e: _keys(e.row),
    "board": _board,
    "images": lambda e: cell_checks.image_problems(e.cells, e.clean),
    "ball": lambda e: cell_checks.ball_problems(e.cells, e.clean),
    "draws": lambda e: cell_checks.draw_problems(e.cells),
    "audit": _audit,
    "card": lambda e: card_problems(e.row.card, e.row.label),
    "code": _code,
    "crate": lambda e: crate_problems(e.row.folder),
}
# where one of these fails, no table is read
FIRST: dict[str, Check] = {
    "keys": OF_ROW["keys"],
    "results": lambda e: table_problems(e.row.results, [*e.row.lines, *e.row.kept]),
}
OF_BOARD: dict[str, Check] = {
    "label": lambda e: against.label_problems(e.row, e.board or Path()),
    "same board": lambda e: against.same_board(e.row, e.board or Path()),
    "same images": lambda e: against.same_images(e.row, e.board or Path()),
    "same audit": lambda e: against.same_audit(e.row, e.board or Path()),
    "same draws": lambda e: against.same_draws(e.row, e.board or Path()),
}
OPENING = ("zip", "files", "results")  # made by `examine` before the others
