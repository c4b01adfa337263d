"""Files that are cut short, have a bit flipped, are empty or gone."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from faults.catalogue import case
from faults.ground import Ground, Outcome, Told, finished, finished_but, nothing_written, run_command, trained

_WAYS: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda raw: raw[: len(raw) // 2],
    "empty": lambda _: b"",
    **{f"bit {i}": lambda raw, i=i: _flipped(raw, i) for i in range(2)},
}


def _flipped(raw: bytes, seed: int) -> bytes:
    """One bit changed, at a place that the seed says."""
    at = random.Random(seed).randrange(len(raw) * 8)
    out = bytearray(raw)
    out[at // 8] ^= 1 << at % 8
    return bytes(out)


def _part_file(ground: Ground, name: str) -> Iterator[Outcome]:
    """A file of one merged part is damaged: its cells are done again, all others stay."""
    for way in (*_WAYS.values(), None):
        out = ground.copy()
        (out / ".tables-stamp").unlink()  # tables are not up to date, and have to be made
        victim, whole = sorted((out / "parts").iterdir())[0], finished(out)
        kept, lost = finished_but(out, victim)
        if way is None:
            (victim / name).unlink()
        else:
            (victim / name).write_bytes(way((victim / name).read_bytes()))
        assert finished(out) == kept
        if name in ("records.parquet", "draws.parquet", "cells.jsonl"):  # what tables are made of
            yield Outcome(run_command("table", out), (str(victim), name, "run the board again"))
        told = ground.run(ground.base.board, out)
        yield Outcome(told, (str(victim),), 0, out, kept=kept)
        after = finished(out)
        assert all(after[key] != whole[key] for key in lost)


@case("records.parquet truncated, empty, missing or with a bit flipped", "no table of it; its cells are done again")
def records(ground: Ground) -> Iterator[Outcome]:
    yield from _part_file(ground, "records.parquet")


@case("draws.parquet truncated, empty, missing or with a bit flipped", "the same")
def draws(ground: Ground) -> Iterator[Outcome]:
    yield from _part_file(ground, "draws.parquet")


@case("cells.jsonl truncated, empty, missing or with a bit flipped", "the same")
def lines(ground: Ground) -> Iterator[Outcome]:
    yield from _part_file(ground, "cells.jsonl")


@case("adversarial.safetensors truncated, empty, missing or with a bit flipped", "its cells are done again")
def adversarials(ground: Ground) -> Iterator[Outcome]:
    yield from _part_file(ground, "adversarial.safetensors")


@case("checksums.json truncated, empty, missing or with a bit flipped", "its cells are done again")
def checksums(ground: Ground) -> Iterator[Outcome]:
    yield from _part_file(ground, "checksums.json")


@case("tables on disk truncated, empty or with a bit flipped", "made again from the records before they are shown")
def tables(ground: Ground) -> Iterator[Outcome]:
    all_tables = "tables.txt", "tables.md", "tables.csv", "tables.tex", "tables.html"
    for name in (*all_tables, ".tables-stamp"):
        for way in _WAYS.values():
            out = ground.copy()
            kept = finished(out)
            (out / name).write_bytes(way((out / name).read_bytes()))
            told = run_command("table", out, "--format", "csv" if name.endswith("csv") else "text")
            assert all((out / t).read_bytes() == (ground.base.reference / t).read_bytes() for t in all_tables), name
        yield Outcome(told, code=0, folder=out, kept=kept)


@case(
    "a part damaged after the tables were made",
    "`table` names the part on standard error and does not show the numbers as if nothing had happened",
)
def after_the_tables(ground: Ground) -> Iterator[Outcome]:
    for name, way in (("records.parquet", "bit 0"), ("draws.parquet", "truncated"), ("cells.jsonl", "empty")):
        out = ground.copy()
        before = run_command("table", out).stdout
        victim = sorted((out / "parts").iterdir())[0]
        kept, _ = finished_but(out, victim)
        (victim / name).write_bytes(_WAYS[way]((victim / name).read_bytes()))
        told = run_command("table", out)
        assert told.stdout != before, name
        assert told.code in (0, 2)
        yield Outcome(told, (str(victim),), told.code)
        yield Outcome(folder=out, board=ground.base.board, kept=kept)


@case("plan.jsonl truncated, empty or with a bit flipped", "no table by it; the next run writes it again")
def plan(ground: Ground) -> Iterator[Outcome]:
    for way in _WAYS.values():
        out = ground.copy()
        kept = finished(out)
        (out / ".tables-stamp").unlink()
        (out / "plan.jsonl").write_bytes(way((out / "plan.jsonl").read_bytes()))
        told = run_command("table", out)
        yield Outcome(told, (str(out / "plan.jsonl"),), folder=out, board=ground.base.board, kept=kept)


@case("manifest.json truncated, empty or with a bit flipped", "put aside with a warning; a new one begins")
def manifest(ground: Ground) -> Iterator[Outcome]:
    for way in _WAYS.values():
        out = ground.copy()
        kept = finished(out)
        damaged = way((out / "manifest.json").read_bytes())
        (out / "manifest.json").write_bytes(damaged)
        told = ground.run(ground.base.board, out)
        yield Outcome(told, (str(out / "manifest.json"), "damaged"), 0, out, kept=kept)
        assert (out / "manifest.json.damaged").read_bytes() == damaged


@case("a board file truncated, empty or with one of 50 bits flipped", "refused naming the file, or run as it now reads")
def board(ground: Ground) -> Iterator[Outcome]:
    raw = ground.base.board.read_bytes()
    out, path = ground.copy(), ground.tmp / "small.toml"
    kept = finished(out)
    refused = 0
    for seed in range(52):
        path.write_bytes({50: raw[: len(raw) // 2], 51: b""}.get(seed, _flipped(raw, seed)))
        told = run_command("plan", path, "--out", ground.tmp / "none")  # a name that is flipped is another board's
        assert told.code in (0, 2), (seed, told)
        refused += told.code
        if told.code:
            yield Outcome(told, (path.name,))
    assert refused > 20
    yield Outcome(folder=out, board=ground.base.board, kept=kept)


def _own_data(ground: Ground) -> tuple[Path, Path]:
    from defenses.data.dataset import load_dataset

    digits, file = load_dataset("digits"), ground.tmp / "own.npz"
    np.savez_compressed(file, x=digits.x[:60].numpy(), y=digits.y[:60].numpy())
    return file, ground.board("", ('dataset = "digits"', f'dataset = "{file}"'), name="own.toml")


@case("a data file (.npz) truncated, empty or with a bit flipped", "refused naming the file; no result")
def data(ground: Ground) -> Iterator[Outcome]:
    file, path = _own_data(ground)
    raw = file.read_bytes()
    for way in _WAYS.values():
        file.write_bytes(way(raw))
        told = ground.run(path, ground.tmp / "own", "--defense", "linear")
        if told.code == 0:  # a bit between the arrays that no reader looks at
            assert np.array_equal(np.load(file)["x"], np.load(_restored(file, raw))["x"])
            continue
        yield Outcome(told, (str(file),))
        assert not list((ground.tmp / "own").glob("parts/*"))


def _restored(file: Path, raw: bytes) -> Path:
    copy = file.with_name("whole.npz")
    copy.write_bytes(raw)
    return copy


@case("a data file that changes between two runs", "its cells are others; nothing is mixed")
def changed_data(ground: Ground) -> Outcome:
    from bench.analysis.results import load_cells

    file, path = _own_data(ground)
    out = ground.tmp / "own"
    assert ground.run(path, out, "--defense", "linear", "--attack", "none").code == 0
    before = set(load_cells(out).query("status == 'ok'")["key"])
    arrays = dict(np.load(file))
    np.savez_compressed(file, x=arrays["x"][::-1], y=arrays["y"][::-1])
    assert ground.run(path, out, "--defense", "linear", "--attack", "none").code == 0
    after = set(load_cells(out).query("status == 'ok'")["key"])
    assert len(before) == len(after) == 6
    assert not before & after
    return Outcome()


def _with_weights(ground: Ground, board: Path, file: Path) -> Told:
    chosen = ["--defense", "trained", "--attack", "slow", "--weights-root", file.parent.parent]
    return ground.run(board, ground.tmp / "none", *chosen)


@case("weights (.safetensors) truncated, empty or with a bit flipped", "refused naming the file; no result")
def weights(ground: Ground) -> Iterator[Outcome]:
    board, file = trained(ground)
    raw = file.read_bytes()
    for way in _WAYS.values():
        file.write_bytes(way(raw))
        yield Outcome(_with_weights(ground, board, file), (str(file),))
        nothing_written(ground.tmp / "none")


@case("the description of weights (.json) truncated, empty or with a bit flipped", "refused naming the file; no result")
def weights_description(ground: Ground) -> Iterator[Outcome]:
    from defenses.zoo.checkpoints import load_network, save_network

    board, file = trained(ground)
    side = file.with_suffix(".json")
    old = json.loads(side.read_text())
    network = load_network("undefended", "digits")
    save_network(file, network, old["network"]["kind"], old["network"]["args"], {"seed": 0}, metrics={"accuracy": 0.5})
    raw = side.read_bytes()
    for way in _WAYS.values():
        side.write_bytes(way(raw))
        yield Outcome(_with_weights(ground, board, file), (side.stem,))
        nothing_written(ground.tmp / "none")


@case("an index list (.npy) truncated, empty or with a bit flipped in its header", "refused naming the file")
def index_list(ground: Ground) -> Iterator[Outcome]:
    file = ground.tmp / "list.npy"
    np.save(file, np.arange(60))
    raw = file.read_bytes()
    path = ground.board("", ('indices = "first-60"', f'indices = "{file}"'))
    assert run_command("plan", path).code == 0
    for damaged in (
        raw[: len(raw) // 2],
        raw[:-3],
        b"",
        *(bytes([raw[0], raw[1] ^ 1 << i]) + raw[2:] for i in range(3)),
    ):
        file.write_bytes(damaged)
        yield Outcome(run_command("plan", path), (str(file),))


@case("a whole part gone", "its cells are done again, and no others")
def part_gone(ground: Ground) -> Outcome:
    out = ground.copy()
    victim = sorted((out / "parts").iterdir())[0]
    kept, _ = finished_but(out, victim)
    shutil.rmtree(victim)
    return Outcome(ground.run(ground.base.board, out), (), 0, out, kept=kept)


@case("files of others among the parts", "left alone")
def not_ours(ground: Ground) -> Outcome:
    out = ground.copy("nearly")
    (out / "parts/notes.txt").write_text("mine")
    (out / "parts/backup").mkdir()
    (out / "parts/cell-notes").write_text("mine")
    told = ground.run(ground.base.board, out)
    assert {"notes.txt", "backup", "cell-notes"} <= {p.name for p in (out / "parts").iterdir()}
    return Outcome(told, (), 0, out, kept=finished(ground.base.nearly))
