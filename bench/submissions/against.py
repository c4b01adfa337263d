"""Checks of a submission against the results folder of a board."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.execution.merge.facts import first_of, united_audits
from bench.spec.cell import label_of
from bench.store.manifest import read_manifest
from bench.store.parts import CellRecord, stored
from bench.store.reader import read_plan
from bench.submissions.submission import Submission
from defenses.utils.errors import UserError
from defenses.utils.text import counted

_FACTS = ("budget", "preset", "presets", "protocols")  # of a manifest; name, data and seed have checks of their own
_THREAT = ("norm", "eps", "targets")
_IMAGES = ("dataset", "split", "indices", "block", "images")


def board_lines(board: Path) -> list[CellRecord]:
    """Return the planned cells of a board, each with what is stored of it.

    Raises:
        UserError: the plan is damaged.
    """
    found = stored(board / "parts")
    return [{**(found[p["key"]][0] if p["key"] in found else {}), **p} for p in read_plan(board / "plan.jsonl")]


def label_problems(row: Submission, board: Path) -> Iterator[str]:
    """Yield the label, or the label of the same cells, where the board has it already."""
    lines = board_lines(board)
    labels = {line["defense"] for line in lines}
    labels |= {label_of(title) for title in read_manifest(board).get("defenses") or {}}
    if row.label in labels:
        remedy = "revert the commit that added it, or pack this one under another label"
        yield f'{board} has a row "{row.label}" already; {remedy}'
        return
    keys = {line["key"]: line["defense"] for line in lines}
    if taken := [line for line in row.plan if line["key"] in keys]:
        yield f'{board} has {counted(len(taken), "cell")} of this row already, as "{keys[taken[0]["key"]]}"'


def is_another(row: Submission, board: Path) -> bool:
    """Return True if the board of a row has another name."""
    return row.manifest.get("board") != read_manifest(board).get("board")


def same_board(row: Submission, board: Path) -> Iterator[str]:
    """Yield what makes the board of a row another one: its name alone, or facts, threats, attacks."""
    own, other = row.manifest, read_manifest(board)
    if is_another(row, board):
        yield f"its board is {own.get('board')!r}, that of {board} is {other.get('board')!r}"
        return
    lines = board_lines(board)
    for key in _FACTS:
        if own.get(key) != other.get(key):
            yield f"its {key} is {own.get(key)!r}, that of {board} is {other.get(key)!r}"
    threats, of_board = ({tuple(line[k] for k in _THREAT) for line in some} for some in (row.plan, lines))  # type: ignore[literal-required]
    if threats != of_board:
        yield f"its threats are {_listed(threats)}, those of {board} are {_listed(of_board)}"
    known = {line["attack"]: _attack(line) for line in lines if "identity" in line}
    for line in {line["attack"]: line for line in row.lines}.values():
        if line["attack"] in known and known[line["attack"]] != _attack(line):
            yield f"{line['attack']} is another attack, or has other parameters or another arithmetic, than on {board}"
    for attack in _missing(row, lines):
        yield f"it lacks the attack {attack}, which all rows of its kind on {board} have"


def _attack(line: CellRecord) -> object:
    name, params, _ = line["identity"]["attack"]
    return name, params, line["identity"].get("compute")


def _missing(row: Submission, lines: Iterable[CellRecord]) -> list[str]:
    """Return the attacks that all random, or all deterministic, rows of the board have and this one lacks."""
    kind = any(line["stochastic"] for line in row.plan)
    of_row: dict[str, dict[str, None]] = {}
    for line in lines:
        if bool(line["stochastic"]) == kind:
            of_row.setdefault(line["defense"], {})[line["attack"]] = None
    own = {line["attack"] for line in row.plan}
    every = [{*attacks} for attacks in of_row.values()]
    shared = set.intersection(*every) if every else set()
    return [attack for attack in next(iter(of_row.values()), {}) if attack in shared and attack not in own]


def same_images(row: Submission, board: Path) -> Iterator[str]:
    """Yield what makes the images of a row other ones."""
    lines = board_lines(board)
    blocks, of_board = ({tuple(line[k] for k in _IMAGES) for line in some} for some in (row.plan, lines))  # type: ignore[literal-required]
    if blocks != of_board:
        cells = [line for line in row.plan if tuple(line[k] for k in _IMAGES) not in of_board]  # type: ignore[literal-required]
        yield f"its images are not those of {board}" + (f": {first_of(cells)}" if cells else ": some are missing")
        return
    data, of_board_data = ({tuple(map(str, d[:4])) for d in _identities(some, "data")} for some in (row.lines, lines))
    if data != of_board_data:
        yield f"its data set or index list has another version than that of {board}"


def same_draws(row: Submission, board: Path) -> Iterator[str]:
    """Yield what makes the draws of a row other ones."""
    lines = board_lines(board)
    seeds, of_board = ({line["seed"] for line in some} for some in (row.plan, lines))
    if seeds != of_board:
        yield f"its seed is {_listed(seeds)}, that of {board} is {_listed(of_board)}"
    own, others = ({str(v) for v in _identities(map(_of_random, some), "verdict")} for some in (row.lines, lines))
    if own and others and own != others:
        yield f"it has {_listed(own)} held-out and selection draws, {board} has {_listed(others)}"


def same_audit(row: Submission, board: Path) -> Iterator[str]:
    """Yield why the audits of a row and those of a board cannot stand side by side."""
    try:
        united_audits([board, row.results])
    except UserError as error:
        yield str(error).replace(str(row.results), "the submission")


def _of_random(line: CellRecord) -> CellRecord:
    """Return a line without its identity where it is judged on one draw."""
    single = not line["stochastic"] or line.get("seed_known")
    return {k: v for k, v in line.items() if k != "identity"} if single else line  # type: ignore[return-value]


def _identities(lines: Iterable[CellRecord], key: str) -> list[list[object]]:
    return [line["identity"][key] for line in lines if "identity" in line]


def _listed(values: Iterable[object]) -> str:
    return ", ".join(" ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in sorted(values, key=str))
