"""Test that table files follow their results: in read-only folders, after changes, and of damaged parts."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from boards import ROOT, purebench_here, write_board
from fake_board import deterministic, write

from bench.report.files import current_table
from bench.store.folder import NotWritable, Store
from defenses.utils.errors import UserError


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    """Return a folder with tables that is then not writable, for root neither."""
    folder = write(tmp_path / "results", deterministic())
    Store(folder).compact([r.line for r in deterministic()])
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
    Store(folder).compact([r.line for r in deterministic()])
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
