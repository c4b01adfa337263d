"""The ways of newcomers, in the present environment."""

import subprocess
import sys

import pytest
from boards import ROOT


@pytest.mark.slow
def test_the_three_ways_end_well():
    done = subprocess.run(
        [sys.executable, ROOT / "tests/newcomer.py", "--here"], text=True, stdout=subprocess.PIPE, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "all three ways end well" in done.stdout
