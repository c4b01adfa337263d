"""Which attack breaks which images, and which classes hold: by hand on a small board, by other ways on a real one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_board import failed, line, result, write
from sklearn.metrics import cohen_kappa_score

import bench
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture
def folder(tmp_path):
    """Image 5 is wrong without an attack. a breaks 0, 1, 2; b breaks 2, 3; c breaks 3."""
    return write(
        tmp_path / "b",
        [
            result(line("d", "none"), [1, 1, 1, 1, 1, 0], size=0),
            result(line("d", "uniform"), [0, 0, 0, 0, 0, 0]),
            result(line("d", "a"), [0, 0, 0, 1, 1, 0]),
            result(line("d", "b"), [1, 1, 0, 0, 1, 0]),
            result(line("d", "c"), [1, 1, 1, 0, 1, 0]),
            failed(line("d", "crashed"), "error", "crash"),
        ],
    )


def test_images_that_one_attack_alone_breaks(folder):
    found = bench.broken_alone(folder)
    assert found[["attack", "image"]].to_numpy().tolist() == [["a", 0], ["a", 1]]
    assert set(found["defense"]) == {"d"}
    assert bench.broken_alone(bench.load_results(folder)).equals(found)


def test_the_order_of_a_cascade(folder):
    found = bench.cascade(folder)
    assert found[["step", "attack", "alone", "new", "broken", "left"]].to_numpy().tolist() == [
        [1, "a", 3, 3, 3, 2],
        [2, "b", 2, 1, 4, 1],
    ]


def test_agreement_of_attacks(folder):
    found = bench.agreement(folder).set_index(["attack_a", "attack_b"])
    assert found.loc["a", "b"][["both", "only_a", "only_b", "neither"]].tolist() == [1, 2, 1, 1]
    assert found.loc["a", "b"]["jaccard"] == 0.25
    assert found.loc["a", "b"]["kappa"] == pytest.approx(cohen_kappa_score([1, 1, 1, 0, 0], [0, 0, 1, 1, 0]))
    assert len(found) == 3
    same = bench.agreement(bench.load_results(folder).query("attack in ('none', 'b', 'c')"))
    assert same["jaccard"].tolist() == [0.5]


def test_attacks_that_break_all_or_nothing_have_no_kappa(tmp_path):
    rows = [result(line("d", name), right) for name, right in (("none", [1] * 6), ("a", [0] * 6), ("b", [0] * 6))]
    found = bench.agreement(write(tmp_path, rows))
    assert found["jaccard"].tolist() == [1]
    assert found["kappa"].isna().all()


def test_real_attacks_break_what_a_table_of_them_says():
    """Other ways to the same numbers: sets of indices."""
    frame = bench.load_results(RESULTS / "digits-linf")
    of = frame[(frame["defense"] == "adp") & ~frame["attack"].isin(["none", "uniform"]) & frame["succeeded"]]
    broken = {key: set(rows["image"]) for key, rows in of.groupby(["attack", "view"])}
    found = bench.cascade(frame).query("defense == 'adp'")
    strongest = max(len(images) for images in broken.values())
    assert found["alone"].iloc[0] == found["new"].iloc[0] == strongest
    assert found["broken"].iloc[-1] == len(set.union(*broken.values()))
    right = frame[(frame["defense"] == "adp") & (frame["attack"] == "none")]["clean"] > 0.5
    assert (found["broken"] + found["left"]).eq(right.sum()).all()
    counts = pd.Series([i for images in broken.values() for i in images]).value_counts()
    alone = bench.broken_alone(frame).query("defense == 'adp'")
    assert set(alone["image"]) == set(counts[counts == 1].index)
    assert all(row.image in broken[row.attack, row.view] for row in alone.itertuples())


def test_accuracy_by_class():
    frame, worst = bench.by_class(RESULTS / "digits-linf"), bench.worst_per_image(RESULTS / "digits-linf")
    adp = frame[frame["defense"] == "adp"]
    assert adp["label"].tolist() == list(range(10))
    assert adp["n_images"].sum() == 500
    overall = np.average(adp["worst_mean"], weights=adp["n_images"])
    assert overall == pytest.approx(worst[worst["defense"] == "adp"]["robust"].mean())
    assert (adp["worst_low"] <= adp["worst_mean"]).all()
    assert (adp["worst_mean"] <= adp["worst_high"]).all()


@pytest.mark.parametrize("ask", [bench.by_class, bench.broken_alone, bench.cascade, bench.agreement])
def test_without_attacks_or_columns(ask, tmp_path):
    empty = write(tmp_path, [result(line("d", "none"), [1] * 6)])
    assert len(ask(empty)) == 0
    with pytest.raises(UserError, match="has no column"):
        ask(pd.DataFrame({"defense": ["d"]}))
    with pytest.raises(UserError, match="the results are '3'"):
        ask(3)
