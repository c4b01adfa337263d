"""Public names of `bench.attacks`, and names of attacks that earlier versions had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bench.attacks
from bench.attacks import Unsupported, find_attack
from bench.board.load import load_board
from bench.spec.threat import ThreatModel
from defenses.utils.errors import UserError

BOARD = """
name = "names"
dataset = "digits"
indices = "first-8"
threat = {{ norm = "Linf", eps = "1/5" }}
defense = [{{ name = "adp" }}]
verdict = {{ draws = 5, selection = 3 }}

[[attack]]
name = "{name}"
params = {{ steps = 4, verify = 20 }}
views = [{{ gradient = "bpda", eot = 5, runs = 1 }}]
"""


def test_the_package_lists_its_public_names_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from bench.attacks import *; import bench.attacks\n"
        "assert dir(bench.attacks) == ['Attack', 'Unsupported', 'attack_names', 'find_attack']\n"
        "assert find_attack('none').name == 'none' and issubclass(Unsupported, Exception)\n"
        "print([m for m in ('torch', 'numpy', 'foolbox', 'torchattacks') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
    with pytest.raises(AttributeError, match=r"attribute '?attack"):
        bench.attacks.attack  # noqa: B018


@pytest.mark.parametrize("name", ["bench:bpda-eot", "bench.screened:bpda_eot"])
def test_both_names_of_the_attack_of_the_ebm_paper_keep_the_key_of_results_made_earlier(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "names.toml"
    path.write_text(BOARD.format(name=name))
    cell = load_board(path).cells()[-1]
    assert cell.identity()["attack"][0] == "bench.screened:bpda_eot"
    assert cell.key == "7bf255ba1c75ab310f5f"  # of that board when the function was in bench/screened.py


def test_the_attack_of_the_ebm_paper_refuses_unknown_parameters() -> None:
    with pytest.raises(UserError, match="verify"):
        find_attack("bench.screened:bpda_eot", {"verifi": 3})
    with pytest.raises(UserError, match="did you mean bench:bpda-eot"):
        find_attack("bench:bpda-eott")
    with pytest.raises(Unsupported, match="Linf"):
        find_attack("bench:bpda-eot").run(
            None, *[_zeros()] * 2, threat=ThreatModel("L2", "1"), target=None, seed=0, num_classes=2
        )


def _zeros():
    import torch

    return torch.zeros(1, 1, 8, 8)
