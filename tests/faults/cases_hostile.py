"""Files, names and paths by somebody who means harm."""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faults.catalogue import case
from faults.ground import Ground, Outcome, Told, finished, finished_but, run_command, sign

HOSTILE = "../../<script>alert(1)</script> \\input{/etc/passwd} & 50% $x$ | [a](javascript:b) =1+1 _x_"


class Trap:
    """A pickle of it makes a file when it is read."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def _armed(ground: Ground) -> tuple[bytes, Path]:
    """A pickle that makes a file, shown to do so when it is read by Python's own reader."""
    mark = ground.tmp / "executed"
    raw = pickle.dumps(Trap(mark), protocol=2)
    pickle.loads(raw)
    assert mark.exists()
    mark.rmdir()
    return raw, mark


@case("a pickle among the arrays of a data file (.npz)", "refused naming the file; not executed")
def pickle_npz(ground: Ground) -> Iterator[Outcome]:
    raw, mark = _armed(ground)
    file = ground.tmp / "own.npz"
    board = ground.board("", ('dataset = "digits"', f'dataset = "{file}"'), name="own.toml")
    trapped = np.empty(60, object)
    trapped[:] = Trap(mark)
    for x, y in ((np.zeros((60, 1, 8, 8)), trapped), (trapped, np.zeros(60, int))):
        np.savez(file, x=x, y=y)
        yield Outcome(ground.run(board, ground.tmp / "own"), (str(file),))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", raw)
        archive.writestr("y.npy", raw)
    yield Outcome(ground.run(board, ground.tmp / "own"), (str(file),))
    assert not mark.exists()


@case("a pickle as an index list (.npy)", "refused naming the file; not executed")
def pickle_index(ground: Ground) -> Iterator[Outcome]:
    raw, mark = _armed(ground)
    file = ground.tmp / "list.npy"
    board = ground.board("", ('indices = "first-60"', f'indices = "{file}"'))
    trapped = np.empty(3, object)
    trapped[:] = Trap(mark)
    np.save(file, trapped, allow_pickle=True)
    yield Outcome(run_command("plan", board), (str(file),))
    file.write_bytes(raw)
    yield Outcome(run_command("plan", board), (str(file),))
    assert not mark.exists()


@case("a pickle as a batch of CIFAR-10", "refused naming the file; not executed, even with the right checksum")
def pickle_cifar(ground: Ground) -> Outcome:
    from defenses.data.formats import unpickle_arrays
    from defenses.utils.errors import UserError

    raw, mark = _armed(ground)
    folder = ground.tmp / "data/cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "test_batch").write_bytes(raw)
    board = ground.board("", ('dataset = "digits"', 'dataset = "cifar10"'))
    told = ground.run(board, ground.tmp / "own", "--data-root", ground.tmp / "data")
    with pytest.raises(UserError, match="no pickle of plain arrays"):
        unpickle_arrays(raw, folder / "test_batch")
    assert not mark.exists()
    return Outcome(told, ("cifar",))


@case("a pickle under the name of weights, or of a training checkpoint", "refused naming the file; not executed")
def pickle_weights(ground: Ground) -> Iterator[Outcome]:
    import hashlib
    import shutil

    from boards import BOARD

    from defenses.zoo.weight_paths import find_weights

    raw, mark = _armed(ground)
    source = find_weights("undefended", "digits")
    file = ground.tmp / "weights/digits/undefended.safetensors"
    file.parent.mkdir(parents=True)
    shutil.copy(source.with_suffix(".json"), file.parent)
    side = json.loads(file.with_suffix(".json").read_text()) | {"sha256": hashlib.sha256(raw).hexdigest()}
    side.pop("sum", None)
    file.with_suffix(".json").write_text(json.dumps(side))
    file.write_bytes(raw)
    board = ground.tmp / "trained.toml"
    board.write_text(
        BOARD.replace('"{models}:linear"', '"undefended"')
        .replace('label = "linear"', 'label = "trained"')
        .format(models=ground.base.folder / "models.py", seconds=0.0)
    )
    told = ground.run(board, ground.tmp / "none", "--defense", "trained", "--weights-root", file.parent.parent)
    yield Outcome(told, (str(file),))
    (file.parent / "undefended.checkpoint.pt").write_bytes(raw)
    told = run_command(
        "train", "undefended", "--out", file.parent.parent, "--set", "phases=[{until=1,optimizer='adam',lr=1e-3}]"
    )
    assert "Traceback" not in told.stderr
    assert told.code in (0, 2)
    assert not mark.exists()


@case("an extension type with a pickle in the schema of a Parquet file", "not executed")
def pickle_parquet(ground: Ground) -> Outcome:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw, mark = _armed(ground)
    out = ground.copy()
    (out / ".tables-stamp").unlink()
    part = sorted((out / "parts").iterdir())[0]
    table = pq.read_table(part / "records.parquet")
    meta = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": raw}
    fields = [f.with_metadata(meta) if f.name == "margin" else f for f in table.schema]
    pq.write_table(table.cast(pa.schema(fields)), part / "records.parquet")
    sign(part)
    told = run_command("table", out)
    assert "Traceback" not in told.stderr
    assert not mark.exists()
    return Outcome()


@case(
    "adversarial.safetensors with a header of 2^62 bytes, correctly signed", "refused naming the part; nothing is lost"
)
def huge_header(ground: Ground) -> Outcome:
    out = ground.copy("nearly")
    part = sorted(p for p in (out / "parts").iterdir() if p.name.startswith("cell-"))[0]
    (part / "adversarial.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    sign(part)
    return Outcome(ground.run(ground.base.board, out), (str(part),))


@case("a part whose checksums name files elsewhere, as /dev/zero", "taken for damaged at once, and done again")
def checksums_elsewhere(ground: Ground) -> Outcome:
    out = ground.copy()
    part = sorted((out / "parts").iterdir())[0]
    sums = json.loads((part / "checksums.json").read_text())
    kept, _ = finished_but(out, part)
    (part / "checksums.json").write_text(json.dumps({**sums, "/dev/zero": "0" * 64, "../../plan.jsonl": "0" * 64}))
    begin = time.perf_counter()
    told = ground.run(ground.base.board, out)
    assert time.perf_counter() - begin < 60
    return Outcome(told, (str(part),), 0, out, kept=kept)


@case("JSON nested a hundred thousand deep: cells, checksums, plan, manifest", "damaged, and written again")
def nested_json(ground: Ground) -> Iterator[Outcome]:
    bomb = b'{"a":' * 100_000
    for name in ("cells.jsonl", "checksums.json", "plan.jsonl", "manifest.json"):
        out = ground.copy()
        file, kept = out / name, finished(out)
        if not file.exists():
            file = sorted((out / "parts").iterdir())[0] / name
            kept, _ = finished_but(out, file.parent)
        file.write_bytes(bomb)
        yield Outcome(ground.run(ground.base.board, out), (), 0, out, kept=kept)


@case("lines of cells with keys that are lists, numbers, paths", "damaged, and done again")
def strange_lines(ground: Ground) -> Iterator[Outcome]:
    for key in (["a"], 7, None, {}):
        out = ground.copy()
        part = sorted((out / "parts").iterdir())[0]
        kept, _ = finished_but(out, part)
        (part / "cells.jsonl").write_text(
            json.dumps({"key": key, "status": "ok", "error": None, "defense": "x"}) + "\n"
        )
        sign(part)
        yield Outcome(ground.run(ground.base.board, out), (str(part),), 0, out, kept=kept)


@case("a board with numbers of 10^9 digits, endless nesting, or more draws than memory", "refused in one line, at once")
def board_bombs(ground: Ground) -> Iterator[Outcome]:
    bombs = [
        (('eps = "1/10"', 'eps = "1e999999999"'),),
        (('eps = "1/10"', 'eps = "1e-999999999"'),),
        (('eps = "1/10"', f'eps = "{"9" * 6000}"'),),
        (("block = 20", f"block = {'9' * 6000}"),),
        (("draws = 5", "draws = 999999999999"),),
        (("eot = 2", "eot = 99999999999"),),
        (("seconds = {seconds}", "seconds = " + "[" * 50_000 + "]" * 50_000),),
        (("n_iter = 3", "n_iter = " + "{{ a = " * 3000 + "1" + "}}" * 3000),),
    ]
    for change in bombs:
        begin = time.perf_counter()
        told = run_command("plan", ground.board("", *change))
        assert time.perf_counter() - begin < 10, change[0][1][:40]
        yield Outcome(told, ("small.toml",))


@case("an array in a data file that claims to be of exabytes", "refused naming the file")
def array_bomb(ground: Ground) -> Outcome:
    import io

    file = ground.tmp / "own.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (60, 1, 1 << 40, 1 << 10)}
    )
    labels = io.BytesIO()
    np.save(labels, np.arange(60) % 10)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", labels.getvalue())
    board = ground.board("", ('dataset = "digits"', f'dataset = "{file}"'), name="own.toml")
    return Outcome(ground.run(board, ground.tmp / "own"), (str(file),))


@case("a board's name that is a path (../x, /x, a/b, .)", "refused naming the board; nothing is written")
def board_name(ground: Ground) -> Iterator[Outcome]:
    for name in ("../x", "/tmp/x", "a/b", "..", ".hidden", "a\\\\b"):
        before = set(ground.tmp.rglob("*"))
        told = run_command("run", ground.board("", ('name = "small"', f'name = "{name}"')))
        yield Outcome(told, ("small.toml", "name a folder"))
        assert set(ground.tmp.rglob("*")) <= before | {ground.tmp / "small.toml"}


@case("labels and a title of markup, LaTeX, formulas and paths", "escaped in every format; no file outside the folder")
def labels(ground: Ground) -> Iterator[Outcome]:
    out, quoted = ground.tmp / "deep/er/out", json.dumps(HOSTILE).replace("{", "{{").replace("}", "}}")
    board = ground.board("", ('label = "linear"', f"label = {quoted}"), ('label = "slow"', f'label = {quoted[:-1]}!"'))
    text = board.read_text()
    board.write_text(f"title = {json.dumps(HOSTILE)}\n" + text)
    before = {p for p in ground.tmp.rglob("*") if out not in p.parents}
    told = ground.run(board, out)
    assert told.code == 0, told.stderr
    outside = {p for p in ground.tmp.rglob("*") if out not in p.parents} - before - {out, *out.parents}
    assert not outside
    assert all(p.name.replace("-", "").replace("_", "").isalnum() for p in (out / "parts").iterdir())
    assert "<script>" not in (out / "tables.html").read_text()
    assert "<script>" not in (out / "tables.md").read_text()
    assert "\\input{" not in (out / "tables.tex").read_text()
    assert ",=1" not in (out / "tables.csv").read_text()
    yield Outcome(told, code=0)


@case("labels with terminal escapes, line breaks or marks that turn the text", "refused naming the board")
def escapes(ground: Ground) -> Iterator[Outcome]:
    for text in ("\\u001b[2J", "a\\nb", "\\u202eabc", "\\u0007", "a\\rb", "\\u009b2J"):
        told = run_command("plan", ground.board("", ('label = "slow"', f'label = "{text}"')))
        yield Outcome(told, ("small.toml", "printable"))


@case("a label of 100,000 characters", "refused, or shown and written like any other")
def long_label(ground: Ground) -> Outcome:
    out = ground.tmp / "out"
    board = ground.board("", ('label = "linear"', f'label = "{"x" * 100_000}"'))
    told = ground.run(board, out, "--attack", "slow", "--quiet")
    assert told.code in (0, 2)
    assert "Traceback" not in told.stderr
    assert len(told.stderr) < 2_000
    return Outcome()


@case("a results folder whose plan, lines and errors hold markup and escapes", "escaped in every format")
def strangers_folder(ground: Ground) -> Outcome:
    out = ground.copy()
    (out / ".tables-stamp").unlink()
    (out / "manifest.json").unlink()
    hostile = HOSTILE + " \x1b[2J\u202e\x07"
    lines = [json.loads(x) for x in (out / "plan.jsonl").read_text().splitlines()]
    for line in lines:
        line["attack"] = hostile if line["attack"] == "slow" else line["attack"]
        line["warnings"] = [hostile]
    (out / "plan.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    for form in ("text", "markdown", "csv", "latex", "html"):
        told = run_command("table", out, "--format", form)
        assert told.code == 0, told.stderr
        assert not {"\x1b", "\u202e", "\x07"} & set(told.stdout)
        assert form == "text" or form == "csv" or "<script>" not in told.stdout
    return Outcome(Told(0, "", ""), code=0)
