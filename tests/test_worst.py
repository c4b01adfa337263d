"""The per-image worst case agrees with the table's, and is chosen on other draws than it is counted on."""

import pandas as pd
import pytest
from boards import write_board

from bench import load_results, summary, worst_per_image
from bench.board import load_board
from bench.run import Options, run_board


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worst")
    run_board(load_board(write_board(folder)), folder / "out", Options(quiet=True))
    return folder / "out"


def test_mean_is_the_table_s(out):
    rows = summary(out)
    expected = rows[rows["attack"] == "worst case"].set_index("defense")["robust_mean"]
    ours = worst_per_image(load_results(out)).groupby("defense")["accuracy"].mean()
    pd.testing.assert_series_equal(ours, expected, check_names=False, check_like=True)


def test_images_without_a_verdict_are_left_out(out):
    frame = load_results(out)
    gap = (frame["index"] == 7) & (frame["attack"] == "slow") & (frame["defense"] == "noisy")
    frame.loc[gap, "accuracy"] = float("nan")
    worst = worst_per_image(frame)
    assert len(worst) == 119
    dropped = worst_per_image(load_results(out)[~gap])
    assert len(dropped) == 119


def test_choice_does_not_see_the_held_out_draws(out):
    frame = load_results(out)
    spoilt = frame.assign(accuracy=1 - frame["accuracy"])
    pd.testing.assert_series_equal(worst_per_image(frame)["attack"], worst_per_image(spoilt)["attack"])
