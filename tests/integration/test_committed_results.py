"""Committed results are those of today's boards and code: the same keys, and tables of the same bytes."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from boards import ROOT, purebench_here

from bench.board.load import load_board
from bench.report.tables import write_tables
from bench.tracks.corruptions import tables as corruptions
from bench.tracks.poisoning.tables import write_poisoning_tables
from bench.tracks.smoothing import tables as smoothing

BOARDS = ["digits-linf", "digits-audit", "digits-defenses", "digits-gan", "digits-overfitting", "mnist-defenses"]
BOARDS += ["adaptive-cost", "leaky-energy", "reproduction-digits"]
BOARDS += ["cifar10-linf", "cifar10-purifiers"]
BOARDS += ["digits-surrogates", "adaptive-cost-mnist"]


@pytest.mark.parametrize("name", BOARDS)
def test_keys_are_what_they_were(name, need_data):
    for data in ("mnist", "cifar10"):
        if data in name:
            need_data(data)
    kept = {json.loads(line)["key"] for line in (ROOT / "results" / name / "plan.jsonl").open()}
    assert kept == {cell.key for cell in load_board(name).cells()}


def write_corruptions(folder):
    corruptions.write(folder, f"Corruptions of {folder.name.partition('-')[2]} (test)")


def write_smoothing(folder):
    defense = {"smooth-digits-smoothing": "smoothing", "smooth-digits-denoised": "denoise-once"}[folder.name]
    smoothing.write(folder, smoothing.RADII, f"Certified accuracy: {defense} on digits (test)")


WRITERS = {
    **dict.fromkeys(BOARDS, write_tables),
    **dict.fromkeys(("corruptions-cifar10", "corruptions-digits"), write_corruptions),
    "digits-poisoning": write_poisoning_tables,
    "smooth-digits-denoised": write_smoothing,
    "smooth-digits-smoothing": write_smoothing,
}


def test_every_committed_folder_has_a_writer():
    words = ("git", "ls-files", "results/*/tables.md")
    committed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {Path(name).parent.name for name in committed} == set(WRITERS)  # a user's own runs lie there too


def test_the_picture_of_the_readme_is_that_of_the_command(tmp_path):
    """Texts and their order: shapes may differ in the last digit between machines."""
    folder = ROOT / "results" / "digits-defenses"
    purebench_here("figures", folder, "--only", "ranks", "--out", tmp_path)
    texts = [re.findall(r">([^<>]+)</text>", (at / "ranks.svg").read_text()) for at in (folder, tmp_path)]
    assert texts[0] == texts[1]
    assert len(texts[0]) > 42


@pytest.mark.parametrize("name", WRITERS)
def test_tables_are_written_with_the_same_bytes(name, tmp_path):
    made = shutil.copytree(ROOT / "results" / name, tmp_path / name)
    committed = {p.name: p.read_bytes() for p in made.glob("tables.*")}
    for file in committed:
        (made / file).unlink()
    WRITERS[name](made)
    assert {p.name: p.read_bytes() for p in made.glob("tables.*")} == committed
