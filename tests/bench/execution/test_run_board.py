"""Test that runs give the same results with any workers and batches, and run no cell twice; kills: `tests/faults`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from boards import BOARD, ROOT, write_board

from bench import load_draws, load_results
from bench.analysis.results import load_cells
from bench.board.load import load_board
from bench.execution.options import Options
from bench.execution.run_board import run_board

TIMES = ["seconds"]


def run(path: Path, out: Path, **options) -> list[str]:
    return run_board(load_board(path), out, Options(quiet=True, **options))


def same(a: Path, b: Path) -> None:
    """Assert bit-identical records and draws, timing columns excepted."""
    pd.testing.assert_frame_equal(load_results(a).drop(columns=TIMES), load_results(b).drop(columns=TIMES))
    one, other = load_draws(a), load_draws(b)
    pd.testing.assert_frame_equal(one.drop(columns="logits"), other.drop(columns="logits"))
    assert all((x == y).all() for x, y in zip(one["logits"], other["logits"], strict=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    path = write_board(folder)
    assert run(path, folder / "out") == []
    return path, folder / "out"


def test_every_planned_image_is_judged(finished):
    frame = load_results(finished[1])
    counts = frame.groupby(["defense", "attack"]).size()
    assert set(counts) == {60}
    assert set(frame["attack"]) == {"none", "uniform", "slow", "autoattack:apgd-ce"}
    noisy = frame[frame["defense"] == "noisy"]
    assert set(noisy["draws"]) == {5}
    assert set(noisy["draws_sel"]) == {3}
    assert set(frame[frame["defense"] == "linear"]["draws"]) == {1}
    assert frame["in_ball"].all()
    assert (frame["linf"] <= 0.1 + 1e-6).all()


def test_records_agree_with_their_draws(finished):
    frame, draws = load_results(finished[1]), load_draws(finished[1])
    held = draws[draws["held_out"]].merge(frame[["cell", "image", "label"]], on=["cell", "image"])
    counted = (held["pred"] == held["label"]).groupby([held["cell"], held["image"]]).sum()
    stored = frame.set_index(["cell", "image"])["correct"]
    assert (counted.sort_index() == stored.sort_index()).all()
    assert ((held["margin"] > 0) == (held["pred"] == held["label"])).all()


def test_run_board_is_imported_without_torch():
    """A board that is finished must not wait for torch, nor workers for their parent."""
    code = "import sys, bench.execution.run_board; print({'torch', 'numpy', 'pandas'} & {*sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


def test_nothing_is_done_twice(finished):
    path, out = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    assert run(path, out) == []
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")} == before


def test_the_number_of_workers_changes_nothing(finished, tmp_path):
    path, out = finished
    assert run(path, tmp_path / "two", workers=2) == []
    same(out, tmp_path / "two")


def test_a_verdict_of_another_batch_size_counts_the_same(finished, tmp_path):
    path = write_board(tmp_path, BOARD.replace("selection = 3", "selection = 3\nbatch = 7"))
    run(path, tmp_path / "out")
    ours, theirs = load_results(tmp_path / "out"), load_results(finished[1])
    assert (ours["correct"] == theirs["correct"]).all()


def test_only_some_defenses_and_attacks(finished, tmp_path):
    path, _ = finished
    run(path, tmp_path / "out", defenses=("linear",), attacks=("slow",))
    cells = load_cells(tmp_path / "out")
    done = cells[cells["status"] == "ok"]
    assert set(done["defense"]) == {"linear"}
    assert set(done["attack"]) == {"none", "uniform", "slow"}
    assert (cells["status"] == "missing").any()


def test_a_longer_board_keeps_what_is_finished(finished, tmp_path):
    import shutil

    path = write_board(tmp_path, BOARD + '\n[[attack]]\nname = "foolbox:LinfFastGradientAttack"\n')
    shutil.copytree(finished[1], tmp_path / "out")
    runs = len(json.loads((tmp_path / "out/manifest.json").read_text())["runs"])
    run(path, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert len(manifest["runs"]) == runs + 1
    cells = load_cells(tmp_path / "out")
    assert (cells["status"] == "ok").all()
    assert cells[cells["attack"] != "foolbox:LinfFastGradientAttack"]["run"].nunique() == 1


def test_manifest_says_with_what_it_was_made(finished):
    manifest = json.loads((finished[1] / "manifest.json").read_text())
    run_entry = manifest["runs"][0]
    assert {"torch", "foolbox", "torchattacks", "python"} <= set(run_entry["versions"])
    assert run_entry["finished"] >= run_entry["started"]
    assert run_entry["hardware"]["cores"] == os.cpu_count()
    assert set(manifest["defenses"]) == {"linear", "noisy"}
