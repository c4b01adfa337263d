"""Committed results are those of the boards as they are: a change that makes other cells of them is seen here."""

import json

import pytest
from boards import ROOT

from bench.board.load import load_board

BOARDS = ["digits-linf", "digits-audit", "digits-defenses", "digits-gan", "digits-overfitting", "mnist-defenses"]


@pytest.mark.parametrize("name", BOARDS)
def test_keys_are_what_they_were(name, need_data):
    if name.startswith("mnist"):
        need_data("mnist")
    kept = {json.loads(line)["key"] for line in (ROOT / "results" / name / "plan.jsonl").open()}
    assert kept == {cell.key for cell in load_board(name).cells()}
