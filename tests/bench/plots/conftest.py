"""Frames of committed results, read once."""

import pytest
from boards import ROOT

import bench


@pytest.fixture(scope="package")
def leaders():
    return bench.leaderboard(ROOT / "results/digits-linf")


@pytest.fixture(scope="package")
def audits():
    return bench.load_audits(ROOT / "results/digits-audit")
