"""Folders that an older or a newer version has written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.spec.cell import SCHEMA
from faults.catalogue import case
from faults.ground import Ground, Outcome, finished, run_command, sign


def _lines(part: Path, change: Any) -> None:
    file = part / "cells.jsonl"
    lines = [json.loads(x) for x in file.read_text().splitlines()]
    for line in lines:
        change(line)
    file.write_text("".join(json.dumps(x) + "\n" for x in lines))
    sign(part)


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".locks" not in p.parts
    }


def _untouched(ground: Ground, out: Path, name: str) -> Iterator[Outcome]:
    """Every command refuses the folder in one line, and changes nothing in it."""
    before = _snapshot(out)
    for command in (
        ["run", ground.base.board, "--out", out],
        ["table", out],
        ["status", ground.base.board, "--out", out],
    ):
        told = run_command(*command)
        yield Outcome(told, (name, "newer purebench"))
        assert _snapshot(out) == before, command


@case("a manifest of a newer schema", "every command refuses in one line that names it; nothing is changed")
def newer_manifest(ground: Ground) -> Iterator[Outcome]:
    out = ground.copy()
    content = json.loads((out / "manifest.json").read_text())
    content.pop("sum", None)
    (out / "manifest.json").write_text(json.dumps(content | {"schema": SCHEMA + 1, "runs": {"new": "layout"}}))
    yield from _untouched(ground, out, str(out / "manifest.json"))


@case("a part of a newer schema", "the same")
def newer_part(ground: Ground) -> Iterator[Outcome]:
    out = ground.copy()
    part = sorted((out / "parts").iterdir())[0]
    _lines(part, lambda line: line["identity"].update(schema=SCHEMA + 1))
    (out / ".tables-stamp").unlink()
    yield from _untouched(ground, out, str(part))


@case("cells of an older schema beside the board's", "they are none of its cells, and stay")
def older_cells(ground: Ground) -> Outcome:
    out = ground.copy()
    part = out / "parts" / "cell-0123456789abcdef0123"
    part.mkdir()
    line = json.loads((sorted((out / "parts").iterdir())[0] / "cells.jsonl").read_text().splitlines()[0])
    line |= {"key": "0123456789abcdef0123", "status": "error", "error": "RuntimeError: old"}
    line["identity"] = line["identity"] | {"schema": 0}
    (part / "cells.jsonl").write_text(json.dumps(line) + "\n")
    sign(part)
    told = ground.run(ground.base.board, out)
    assert part.is_dir()
    return Outcome(told, (), 0, out, kept=finished(ground.base.reference))


@case("records of another version that lack columns which tables need", "refused, naming the file and the column")
def fewer_columns(ground: Ground) -> Iterator[Outcome]:
    for column in ("hits", "beyond", "correct", "linf"):
        out = ground.copy()
        (out / ".tables-stamp").unlink()
        part = sorted((out / "parts").iterdir())[0]
        table = pq.read_table(part / "records.parquet")
        pq.write_table(table.drop_columns([column]), part / "records.parquet")
        sign(part)
        told = run_command("table", out)
        yield Outcome(told, (str(part), column))
        told = ground.run(ground.base.board, out)
        yield Outcome(told, (str(part), column))


@case("parts whose columns have another type, to be merged", "refused naming the part; nothing is lost")
def other_types(ground: Ground) -> Outcome:
    out = ground.copy("nearly")
    part, kept = sorted(p for p in (out / "parts").iterdir() if p.name.startswith("cell-"))[0], finished(out)
    table = pq.read_table(part / "records.parquet")
    at = table.column_names.index("correct")
    table = table.set_column(at, "correct", pa.array([f"{v} of 5" for v in table["correct"].to_pylist()]))
    pq.write_table(table, part / "records.parquet")
    sign(part)
    told = ground.run(ground.base.board, out)
    assert kept.items() <= finished(out).items()
    return Outcome(told, (str(part), "correct"))


@case("a results folder of another board", "refused, naming both boards")
def another_board(ground: Ground) -> Outcome:
    out = ground.copy()
    kept = finished(out)
    told = ground.run(ground.board("", ('name = "small"', 'name = "other"')), out)
    return Outcome(told, ("small", "other"), folder=out, board=ground.base.board, kept=kept)
