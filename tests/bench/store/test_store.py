"""Test stores with concurrent writers, crashes and damage."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_board import deterministic, failed, line, result, write

import bench.store.folder as store_folder
from bench.store.folder import Store
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
