"""The glossary describes every column of the frames, with its dtype, and `purebench columns` shows it."""

from pathlib import Path

import pandas as pd
import pytest
from boards import purebench_here
from fake_board import deterministic, stochastic, write

import bench
from bench.analysis.columns import columns_of, frames
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"


@pytest.mark.parametrize("folder", ["digits-linf", "digits-defenses", "fake"])
@pytest.mark.parametrize("name", list(frames()))
def test_every_column_is_described_with_its_dtype(name, folder, tmp_path):
    path = RESULTS / folder if folder != "fake" else write(tmp_path, [*deterministic(), *stochastic()])
    frame = getattr(bench, name)(path)
    described = {column.name: column for column in columns_of(name)}
    needed = [column.name for column in described.values() if column.always]
    assert {*needed} <= {*frame}  # their order is that of the parts
    assert not {*frame} - described.keys()
    kinds = {c: str(frame[c].dtype) for c in frame if len(frame) and described[c].dtype != "object"}
    assert kinds == {c: described[c].dtype for c in kinds}


def test_meanings_are_short_and_shares_are_shares():
    for column in columns_of():
        assert 3 <= len(column.meaning) <= 130, column
        assert not column.meaning.endswith("."), column
    frame = bench.summary(RESULTS / "digits-linf")
    for column in columns_of("summary"):
        if column.unit == "share" and column.name in frame:
            assert frame[column.name].dropna().between(0, 1).all(), column


def test_ends_of_intervals_name_their_mean():
    found = {column.name: column.meaning for column in columns_of("summary")}
    assert found["robust_low"].startswith("lower end of the interval of `robust_mean` (Wilson")
    assert found["asr_high"].startswith("upper end of the interval of `asr` (")


def test_in_python():
    frame = bench.columns("load_draws")
    assert list(frame) == ["frame", "name", "dtype", "unit", "meaning", "always"]
    assert set(frame["frame"]) == {"load_draws"}
    assert set(bench.columns()["frame"]) == frames().keys()
    with pytest.raises(UserError, match='unknown frame "draws"; did you mean load_draws'):
        bench.columns("draws")


def test_on_the_command_line():
    assert "load_draws       a row per image, attack and draw" in purebench_here("columns").stdout
    told = purebench_here("columns", "load_draws").stdout
    assert told.count("\n") == 1 + len(columns_of("load_draws"))
    told = purebench_here("columns", "worst", "attack").stdout
    assert "leaderboard:" in told
    assert all("worst" in text.lower() for text in told.splitlines() if text.startswith("  "))
    told = purebench_here("columns", "lod_results")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "did you mean load_results" in told.stderr


def test_the_whole_glossary_as_a_frame():
    assert isinstance(bench.columns(), pd.DataFrame)
    assert not bench.columns().duplicated(["frame", "name"]).any()
