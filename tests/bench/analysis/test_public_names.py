"""No column shadows an attribute of pandas, and frames with the names of earlier versions give the same answers."""

import pandas as pd
import pytest
from fake_board import deterministic, stochastic, write

import bench
from bench.analysis.columns import columns_of
from bench.plots.attacks import submission_curves
from bench.plots.matrices import matrix

OLD = {"image": "index", "strict_rank": "rank"}


def test_no_column_shadows_an_attribute_of_pandas():
    empty = pd.DataFrame()
    assert [column for column in columns_of() if hasattr(empty, column.name)] == []


def test_the_radius_is_a_number_beside_its_text(tmp_path):
    frame = bench.load_results(write(tmp_path, [*deterministic(), *stochastic()]))
    assert frame.columns.get_loc("eps_value") == frame.columns.get_loc("eps") + 1
    (text,) = frame["eps"].unique()
    top, _, below = text.partition("/")
    assert frame["eps_value"].unique().tolist() == [int(top) / int(below or 1)]


@pytest.mark.parametrize(
    "ask",
    [bench.summary, bench.worst_per_image, bench.broken_alone, bench.cascade, bench.agreement, bench.by_class],
)
def test_frames_of_earlier_versions_give_the_same_answers(ask, tmp_path):
    frame = bench.load_results(write(tmp_path, [*deterministic(), *stochastic()]))
    old = frame.rename(columns=OLD).drop(columns="eps_value")
    assert "image" not in old
    pd.testing.assert_frame_equal(ask(old), ask(frame))
    few = frame["image"] < 3
    pd.testing.assert_frame_equal(ask(old[few]), ask(frame[few]))


def test_pictures_take_them_too(tmp_path):
    folder = write(tmp_path, [*deterministic(), *stochastic()])
    records, worst = bench.load_results(folder), bench.worst_per_image(folder)
    several = records[records["stochastic"]]
    pd.testing.assert_frame_equal(submission_curves(several.rename(columns=OLD)), submission_curves(several))
    assert len(matrix(worst.rename(columns=OLD)).get_yticklabels()) == worst["defense"].nunique()
