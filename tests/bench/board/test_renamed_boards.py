"""A board without a name of its own is known by its cells: its file may be renamed or moved."""

import json
import shutil

import pytest
from boards import purebench_here, write_board


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A board a.toml without a name that has run in part, in the default folder."""
    monkeypatch.chdir(tmp_path)
    path = write_board(tmp_path)
    (tmp_path / "a.toml").write_text(path.read_text().replace('name = "small"\n', ""))
    result = run("a.toml")
    assert result.returncode == 0, result.stderr
    return tmp_path


def run(board, *more):
    return purebench_here("run", board, "--defense", "linear", "--attack", "slow", "--workers", 0, *more)


def numbers(folder):
    return [line for line in (folder / "tables.md").read_text().splitlines() if line.startswith("| linear")]


def test_a_renamed_board_finds_its_cells(ran):
    before = numbers(ran / "results/a")
    (ran / "a.toml").rename(ran / "b.toml")
    status = purebench_here("status", "b.toml")
    assert "9 of 24 cells finished in results/a" in status.stdout
    assert status.stderr == 'note: "b" has the cells of "a", so the results in results/a are its own\n'
    again = run("b.toml")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("note:") == 1
    assert "[1/" not in again.stderr
    assert not (ran / "results/b").exists()
    assert numbers(ran / "results/a") == before
    assert json.loads((ran / "results/a/manifest.json").read_text())["board"] == "b"
    assert purebench_here("table", "b.toml").stdout == purebench_here("table", "results/a").stdout
    assert "note:" not in run("b.toml").stderr


def test_a_renamed_folder_below_results_is_found(ran):
    (ran / "results/a").rename(ran / "results/kept")
    assert "9 of 24 cells finished in results/kept" in purebench_here("status", "a.toml").stdout


def test_a_renamed_board_goes_on_in_the_folder_that_is_named(ran):
    (ran / "results/a").rename(ran / "kept")
    (ran / "sub").mkdir()
    shutil.move(ran / "a.toml", ran / "sub/b.toml")
    plan = purebench_here("plan", "sub/b.toml", "--out", "kept")
    assert "3 finished" in plan.stdout
    assert 'note: "b" has the cells of "a"' in plan.stderr
    again = run("sub/b.toml", "--out", "kept")
    assert again.returncode == 0, again.stderr
    assert "[1/" not in again.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [("draws = 5", "draws = 7"), ("first-60", "first-40"), ("n_iter = 3", "n_iter = 4")],
)
def test_another_board_is_refused_for_the_folder(ran, old, new):
    """Also one that shares cells with it: the rows of the one would hide those of the other."""
    (ran / "b.toml").write_text((ran / "a.toml").read_text().replace(old, new))
    manifest = (ran / "results/a/manifest.json").read_bytes()
    for command in ("run", "status", "plan"):
        result = purebench_here(command, "b.toml", "--out", "results/a")
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert 'of the board "a", not of "b"' in result.stderr
        assert 'name = "a"' in result.stderr
    assert (ran / "results/a/manifest.json").read_bytes() == manifest
    assert "results in results/b" in purebench_here("plan", "b.toml").stdout


def test_a_changed_board_goes_on_under_the_name_that_the_message_tells(ran):
    changed = (ran / "a.toml").read_text().replace("n_iter = 3", "n_iter = 4")
    (ran / "b.toml").write_text(f'name = "a"\n{changed}')
    assert "9 of 24 cells finished in results/a" in purebench_here("status", "b.toml").stdout


def test_a_name_of_its_own_decides(ran):
    (ran / "b.toml").write_text('name = "b"\n' + (ran / "a.toml").read_text())
    result = purebench_here("run", "b.toml", "--out", "results/a")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "results in results/b" in purebench_here("plan", "b.toml").stdout


def test_a_renamed_and_changed_board_is_told_of_its_cells(ran):
    (ran / "b.toml").write_text((ran / "a.toml").read_text().replace("n_iter = 3", "n_iter = 4"))
    note = 'note: results/a has 18 of the 24 cells; to go on with it, write name = "a" into the board\n'
    for command in ("status", "plan"):
        assert purebench_here(command, "b.toml").stderr == note
    (ran / "results/a").rename(ran / "results/kept")
    assert purebench_here("status", "b.toml").stderr == note.replace("results/a", "results/kept").replace(
        "board\n", "board and add --out results/kept\n"
    )


def test_a_renamed_board_keeps_the_folder_that_names_it(ran):
    """Although it is changed after it has gone on under its new name."""
    (ran / "a.toml").rename(ran / "b.toml")
    assert run("b.toml").returncode == 0
    (ran / "b.toml").write_text((ran / "b.toml").read_text().replace("n_iter = 3", "n_iter = 4"))
    status = purebench_here("status", "b.toml")
    assert "cells finished in results/a" in status.stdout
    assert status.stderr == ""
