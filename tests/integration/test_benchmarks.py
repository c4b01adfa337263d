"""The programs of tests/benchmarks: all of them start, and what only a long one would run does run."""

import re
import runpy
import sys

import pytest
from boards import ROOT

from defenses.data.dataset import load_dataset

FOLDER = ROOT / "tests" / "benchmarks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_it_is_imported_and_says_what_it_measures(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(path), run_name="__main__")
    assert not done.value.code
    assert f"usage: {path.name}" in capsys.readouterr().out


def test_the_fullness_of_batches_is_measured(capsys):
    data = load_dataset("digits")
    runpy.run_path(str(FOLDER / "bench_adaptive.py"))["fullness"](data.x[:4], data.y[:4], rows=16, turns=1)
    filled, ratios = capsys.readouterr().out.splitlines()
    assert 25 < float(re.search(r"([\d.]+)% of the rows filled", filled)[1]) <= 100
    assert float(ratios.rpartition(" ")[2]) > 0
