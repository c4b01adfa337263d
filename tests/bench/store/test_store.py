"""Test stores with concurrent writers, crashes and damage, and the manifest and tables beside them."""

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from boards import BOARD, purebench_here, write_board
from fake_board import deterministic, failed, line, result, write

import bench.store.folder as store_folder
from bench.board.load import load_board
from bench.report.files import current_table
from bench.report.footnotes import mixed
from bench.store.folder import NotWritable, Store
from bench.store.manifest import read_manifest, update_manifest
from bench.store.parts import attempts, stored
from defenses.utils.errors import UserError


def keys(folder):
    return {r.name for r in (folder / "parts").iterdir()}


def compact(folder, results):
    Store(folder).compact([r.line for r in results])


def test_what_is_not_ours_stays(tmp_path):
    results = deterministic()
    folder = write(tmp_path, results)
    (folder / "parts/notes.txt").write_text("mine")
    (folder / "parts/cell-notes").write_text("mine")
    (folder / "parts/backup").mkdir()
    assert set(Store(folder).finished()) == {r.line["key"] for r in results}
    compact(folder, results)
    assert {"notes.txt", "cell-notes", "backup"} < keys(folder)
    assert len(keys(folder)) == 4


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[]\n", b"{}\n"])
def test_damaged_lines_are_missing_cells(tmp_path, text):
    results = deterministic()
    folder = write(tmp_path, results)
    victim = folder / f"parts/cell-{results[0].line['key']}"
    (victim / "cells.jsonl").write_bytes(text)
    assert set(stored(folder / "parts")) == {r.line["key"] for r in results[1:]}
    assert Store(folder).cell_record(results[0].line["key"]) is None
    warnings = []
    assert len(Store(folder).finished(warnings.append)) == 3
    assert len(warnings) == 1
    assert not victim.exists()


def test_damaged_lines_of_a_merged_part_are_missing_cells(tmp_path):
    results = deterministic()
    folder = write(tmp_path, results)
    compact(folder, results)
    (merged,) = (folder / "parts").glob("all-*")
    (merged / "cells.jsonl").write_text("{")
    assert Store(folder).cell_record(results[0].line["key"]) is None


def test_forgetting_leaves_what_was_stored_meanwhile(tmp_path, monkeypatch):
    results = deterministic()
    folder = write(tmp_path, results)
    store, outdated = Store(folder), results[0].line
    key, again = outdated["key"], result(outdated | {"budget": "reduced"}, [1] * 6)
    damaged = folder / f"parts/cell-{results[1].line['key']}/cells.jsonl"
    damaged.write_text("{")
    read = store_folder.read_lines

    def read_then_replaced(part):
        lines = read(part)
        if part.name == f"cell-{key}" and lines[0]["budget"] == outdated["budget"]:
            Store(folder).save(again)
        return lines

    monkeypatch.setattr(store_folder, "read_lines", read_then_replaced)
    store.forget({key: read(folder / f"parts/cell-{key}")[0]})
    monkeypatch.undo()
    assert store.cell_record(key)["budget"] == "reduced"
    assert damaged.exists()


def test_checksums_that_are_none(tmp_path):
    results = deterministic()
    folder = write(tmp_path, results)
    (folder / f"parts/cell-{results[0].line['key']}/checksums.json").write_text("[]")
    assert len(Store(folder).finished()) == 3


def test_a_part_that_moves_is_read_again(tmp_path, monkeypatch):
    """Let another process merge all parts just after this one has listed them."""
    import bench.store.parts

    results = deterministic()
    folder = write(tmp_path, results)
    honest = bench.store.parts.part_folders
    warnings = []

    def listing(parts):
        folders = honest(parts)
        monkeypatch.setattr(bench.store.parts, "part_folders", honest)
        compact(folder, results)
        return folders

    monkeypatch.setattr(bench.store.parts, "part_folders", listing)
    assert set(Store(folder).finished(warnings.append)) == {r.line["key"] for r in results}
    assert not warnings


def test_a_part_that_always_moves_is_one_line():
    def read():
        raise FileNotFoundError(2, "gone", "cells.jsonl")

    with pytest.raises(UserError, match=r"cells\.jsonl vanished"):
        attempts(read)


def test_a_cell_done_again_wins_over_its_merged_copy(tmp_path):
    results = deterministic()
    folder = write(tmp_path, results)
    compact(folder, results)
    again = result(line("plain", "apgd"), [0] * 6)
    again.line["run"] = "second"
    store = Store(folder)
    store.save(again)
    key = again.line["key"]
    assert store.cell_record(key)["run"] == "second"
    assert store.finished()[key]["run"] == "second"
    compact(folder, results)
    assert len(keys(folder)) == 1
    assert Store(folder).cell_record(key)["run"] == "second"
    assert store.cell_record(key)["run"] == "second"
    compact(folder, list(reversed(results)))
    assert len(keys(folder)) == 1
    assert Store(folder).finished()[key]["run"] == "second"


def test_a_failure_hides_no_result(tmp_path):
    results = deterministic()
    folder = write(tmp_path, results)
    compact(folder, results)
    Store(folder).save(failed(line("plain", "apgd"), "error", "RuntimeError"))
    assert {r["status"] for r in Store(folder).finished().values()} == {"ok"}
    compact(folder, results)
    assert len(keys(folder)) == 1


def test_an_old_merged_part_goes_though_all_its_cells_are_newer(tmp_path):
    results = deterministic()
    folder = write(tmp_path, results[:2])
    compact(folder, results[:2])
    write(tmp_path, results)  # all again, and two more
    compact(folder, results)
    assert len(keys(folder)) == 1
    assert len(Store(folder).finished()) == 4


def test_parts_of_other_versions_merge(tmp_path):
    results = deterministic()
    results[0].records["a_new_column"] = [7] * 6
    folder = write(tmp_path, results)
    compact(folder, results)
    (part,) = (folder / "parts").iterdir()
    column = pq.read_table(part / "records.parquet")["a_new_column"]
    assert column.null_count == len(column) - 6


@pytest.mark.parametrize("content", [b'{"runs": 3}', b'{"runs": [3]}', b"\xff\xfe{", b"[]", b""])
def test_a_damaged_manifest_is_kept_aside(tmp_path, content, caplog):
    board = load_board(write_board(tmp_path))
    (tmp_path / "manifest.json").write_bytes(content)
    assert read_manifest(tmp_path) == {}
    update_manifest(Store(tmp_path), board.manifest_facts(), {"id": "a"})
    assert read_manifest(tmp_path)["runs"] == [{"id": "a"}]
    assert (tmp_path / "manifest.json.damaged").read_bytes() == content
    assert [text.count("manifest.json.damaged") for text in caplog.messages] == [1]


def test_a_manifest_that_is_up_to_date_is_left(tmp_path):
    board = load_board(write_board(tmp_path))
    update_manifest(Store(tmp_path), board.manifest_facts(), {"id": "a"})
    file = tmp_path / "manifest.json"
    before = file.stat().st_mtime_ns, file.stat().st_ino
    update_manifest(Store(tmp_path), board.manifest_facts())
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before
    titled = load_board(write_board(tmp_path, 'title = "New"\n' + BOARD))
    update_manifest(Store(tmp_path), titled.manifest_facts())
    assert read_manifest(tmp_path)["title"] == "New"
    assert read_manifest(tmp_path)["runs"] == [{"id": "a"}]


def test_rows_of_several_environments_say_so():
    def run(name, torch="2.15.0", threads=2, commit="a", device="cpu"):
        hardware = {"device": device, "processor": "P"}
        return {"id": name, "versions": {"torch": torch}, "threads": threads, "hardware": hardware, "git": commit}

    runs = [run("a"), run("b", "2.16.0"), run("c", commit="b"), run("d", threads=1, device="cuda:0")]
    manifest = {"runs": runs}

    def cells(*names, defense="adp", status="ok"):
        return [{"defense": defense, "status": status, "run": n} for n in names]

    assert mixed(cells("a", "c"), manifest) == []
    assert mixed(cells("a") + cells("b", status="error"), manifest) == []
    assert mixed(cells("a") + cells("b", defense="pgd"), manifest) == []
    assert mixed(cells("a", "b", "c"), manifest) == ["adp: cells from 2 environments: torch 2.15.0 / 2.16.0"]
    assert mixed(cells("a", "d"), manifest) == ["adp: cells from 2 environments: threads 1 / 2; device cpu / cuda:0"]
    assert "torch 2.15.0 / unknown" in mixed(cells("a", "lost"), manifest)[0]
    assert mixed([{"defense": "adp", "status": "ok", "run": float("nan")}], {}) == []


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    """Return a folder with tables that is then not writable, for root neither."""
    folder = write(tmp_path / "results", deterministic())
    compact(folder, deterministic())
    current_table(folder)

    def refuse(path, data):
        raise NotWritable(f"cannot write to {path}")

    monkeypatch.setattr("bench.report.files.write_atomic", refuse)
    return folder


def snapshot(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_tables_of_a_read_only_folder(sealed):
    fresh, before = current_table(sealed), snapshot(sealed)
    assert "apgd" in fresh
    (sealed / ".tables-stamp").write_bytes(b"\xff old")
    before = snapshot(sealed)
    assert current_table(sealed) == fresh
    assert current_table(sealed, "csv").startswith((sealed / "tables.csv").read_text()[:20])
    assert snapshot(sealed) == before


def test_table_and_run_on_a_read_only_mount(tmp_path):
    import subprocess
    import sys

    from boards import ROOT

    path, out = write_board(tmp_path), tmp_path / "out"
    assert purebench_here("run", path, "--out", out, "--quiet", "--defense", "linear").returncode == 0
    shutil.rmtree(out / ".locks")
    unshare = ["unshare", "--mount", "--map-root-user"] if os.geteuid() else ["unshare", "--mount"]
    bind = f"mount --bind {out} {out} && mount -o remount,bind,ro {out}"
    if subprocess.run([*unshare, "sh", "-c", bind], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    cli = f"{sys.executable} -m bench"
    script = f"{bind} && {cli} table {out} && {cli} run {path} --out {out} --defense linear"
    shown = subprocess.run([*unshare, "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("linear") >= 2
    (out / ".tables-stamp").unlink()
    shown = subprocess.run(
        [*unshare, "sh", "-c", f"{bind} && {cli} table {out}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "linear" in shown.stdout


def test_a_changed_title_makes_tables_stale(tmp_path):
    folder = write(tmp_path / "results", deterministic())
    (folder / "manifest.json").write_text(json.dumps({"title": "Old"}))
    current_table(folder)
    (folder / "manifest.json").write_text(json.dumps({"title": "New"}))
    assert "<title>New" in current_table(folder, "html")


def damaged(folder, name, *, keep_size=True):
    """Damage a file of the only part after its tables were written."""
    (part,) = (folder / "parts").glob("all-*")
    raw = bytearray((part / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (part / name).write_bytes(raw if keep_size else raw[:-7])
    os.utime(part / name, ns=(0, (part / name).stat().st_mtime_ns + 1))
    return part


@pytest.fixture
def tabled(tmp_path):
    folder = write(tmp_path / "results", deterministic())
    compact(folder, deterministic())
    current_table(folder)
    return folder


@pytest.mark.parametrize("name", ["records.parquet", "draws.parquet", "cells.jsonl"])
@pytest.mark.parametrize("keep_size", [True, False])
def test_a_part_damaged_after_its_tables_is_named_in_place_of_them(tabled, name, keep_size):
    part = damaged(tabled, name, keep_size=keep_size)
    for _ in range(2):  # nothing that was refused is taken for seen
        with pytest.raises(UserError, match="run the board again") as caught:
            current_table(tabled)
        assert str(part) in str(caught.value)


def test_damaged_images_are_told_of_each_time(tabled, caplog):
    shown = current_table(tabled)
    assert caplog.messages == []
    part = damaged(tabled, "adversarial.safetensors")
    for n in (1, 2):
        assert current_table(tabled) == shown
        warning = f"warning: {part}: adversarial.safetensors is damaged; run the board again, which redoes its cells"
        assert caplog.messages == [warning] * n


def test_tables_are_shown_without_making_them_until_a_file_changes(tabled, tmp_path, monkeypatch):
    shown = current_table(tabled)
    copy = shutil.copytree(tabled, tmp_path / "copy", copy_function=shutil.copyfile)  # other times
    monkeypatch.setattr("bench.report.tables.table_texts", None)
    assert current_table(tabled) == shown
    with pytest.raises(TypeError):
        current_table(copy)
    monkeypatch.undo()
    assert current_table(copy) == shown


def test_a_folder_is_empty_until_something_is_stored(tmp_path):
    assert Store(tmp_path / "out").finished() == {}
    assert not list((tmp_path / "out").iterdir())


def test_a_cell_is_stored_without_a_look_at_the_others(tmp_path, monkeypatch):
    """Else a board of 100,000 cells would list 100,000 folders as often."""
    store, (first, *others) = Store(tmp_path), deterministic()
    for made in others:
        store.save(made)
    (left := store.parts / f".cell-{first.line['key']}-new").mkdir()  # by a process that was killed
    (left / "records.parquet").write_text("half")
    listed = []
    for name in ("iterdir", "glob"):
        real = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda path, *a, real=real: listed.append(path) or real(path, *a))
    store.save(first)
    assert store.parts not in listed
    assert store.cell_record("another") is None
    listed.clear()
    assert store.cell_record("a third") is None
    assert listed == []
    monkeypatch.undo()
    assert keys(tmp_path) == {f"cell-{made.line['key']}" for made in (first, *others)}
    assert set(store.finished()) == {made.line["key"] for made in (first, *others)}


def test_a_merge_by_another_process_is_seen(tmp_path):
    mine, theirs, results = Store(tmp_path), Store(tmp_path), deterministic()
    key = results[0].line["key"]
    assert mine.cell_record(key) is None
    for made in results:
        theirs.save(made)
    theirs.compact([made.line for made in results])
    assert mine.cell_record(key) == results[0].line
    theirs.forget({key: results[0].line})
    assert mine.cell_record(key) is None
    assert mine.cell_record(results[1].line["key"]) == results[1].line
