"""Pictures of attacks on a defense show the numbers of their frames."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import points

import bench
from bench.plots import (
    attacks,
    draws,
    margin_bins,
    margins,
)
from bench.plots.attacks import majority_curves, submission_curves
from bench.stats.proportions import rob_at_m
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"


def test_attacks_are_sorted_and_show_the_summary():
    frame = bench.summary(RESULTS / "digits-linf")
    ax = attacks(frame, defense="adp")
    shown = [xy[0] for xy in np.concatenate(points(ax)) if len(points(ax))]
    rows = frame[(frame["defense"] == "adp")]
    assert np.allclose(sorted(shown), sorted(100 * rows["robust_mean"]))
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "worst case"
    assert names[-2:] == ["clean images", "uniform noise"]
    with pytest.raises(UserError, match=r"name one defense: undefended, pgd-at"):
        attacks(frame)
    with pytest.raises(UserError, match='no defense "x"'):
        attacks(frame, defense="x")


def test_draws_shows_rob_at_m():
    records = bench.load_results(RESULTS / "digits-linf")
    ax = draws(records, defense="adp")
    of = records[(records["defense"] == "adp") & (records["attack"] == "none")]
    wanted = [100 * rob_at_m(of["correct"], of["draws"], m).mean() for m in range(1, 16)]
    by_label = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert np.allclose(by_label["clean images"], wanted)
    assert len(by_label) == 5  # clean images and the four strongest attacks
    with pytest.raises(UserError, match="no image has more than one draw"):
        draws(records, defense="pgd-at")


def test_draws_shows_the_majority_of_tables():
    """The majority of all draws is that of the summary, and of one draw its first; odd numbers only."""
    records, votes = (read(RESULTS / "digits-linf") for read in (bench.load_results, bench.load_draws))
    records = records[records["defense"] == "adp"]
    curves = majority_curves(records[records["draws"] > 1], votes, attacks=None, submissions=99)
    summary = bench.summary(RESULTS / "digits-linf").query("defense == 'adp' and attack != 'worst case'")
    last = curves.groupby("attack", sort=False).tail(1)
    assert sorted(last["share"]) == pytest.approx(sorted(summary["majority"]))
    assert set(last["m"]) == {int(records["draws"].max())}
    assert set(curves["m"] % 2) == {1}
    first = (
        votes[(votes["defense"] == "adp") & (votes["attack"] == "none") & votes["held_out"]]
        .sort_values("draw", kind="stable")
        .drop_duplicates("image")
    )
    labels = records[records["attack"] == "none"].set_index("image")["label"]
    share = (first.set_index("image")["pred"] == labels).mean()
    assert curves[(curves["attack"] == "clean images") & (curves["m"] == 1)]["share"].tolist() == pytest.approx([share])
    ax = draws(records, votes=votes)
    dashed = {tuple(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "--" and len(line.get_xdata())}
    assert dashed == {tuple(range(1, 16, 2))}
    assert ax.get_ylabel() == "accuracy (%)"


def test_a_refusal_is_a_class_of_its_own_and_a_tie_is_wrong():
    records = records_of(image=0, label=7).head(1)
    votes = pd.DataFrame({"defense": "d", "training_seed": 0, "attack": "a", "view": "", "norm": "Linf", "eps": "1/5",
                          "image": 0, "draw": range(6), "held_out": [False] + [True] * 5, "pred": [1, 7, 7, 7, 3, 7],
                          "rejected": [False, False, True, True, False, False]})  # fmt: skip
    curves = majority_curves(records, votes)
    assert dict(zip(curves["m"], curves["share"], strict=True)) == {1: 1.0, 3: 0.0, 5: 0.0}
    assert majority_curves(records.assign(targets="random"), votes).empty


def records_of(**columns):
    """Ten images of a random defense under one attack, 20 draws each."""
    frame = pd.DataFrame({"image": range(10), "attack": "a", "view": "", "targets": "none", "draws": 20, "correct": 10})
    return frame.assign(**{"hits": 0, "defense": "d", "dataset": "x", "split": "test", "norm": "Linf", "eps": "1/5",
                           "status": "ok", **columns})  # fmt: skip


def test_draws_that_never_give_the_target_withstand():
    curves = submission_curves(records_of(targets="random", correct=0, hits=0))
    assert curves["share"].eq(1).all()
    ax = draws(records_of(targets="random", correct=0))
    assert ax.get_ylabel() == "none of them gives the target (%)"


def test_trainings_are_no_further_images():
    one = submission_curves(records_of()).query("m == 1")
    three = submission_curves(pd.concat([records_of(training_seed=seed) for seed in range(3)])).query("m == 1")
    assert one[["share", "low", "high"]].to_numpy().tolist() == three[["share", "low", "high"]].to_numpy().tolist()


def test_further_gradient_modes_have_shapes_of_their_own():
    frame = bench.summary(RESULTS / "digits-linf").query("defense == 'adp'").copy()
    modes = ["", "", "blind", "surrogate:25", "bpda", "exact", "smooth:1/100", "bpda", "exact", "", ""]
    frame["gradient"] = modes
    ax = attacks(frame)
    kept = {line.get_label(): line.get_marker() for line in ax.lines if "gradients" in str(line.get_label())}
    assert list(kept)[:3] == ["exact gradients", "bpda gradients", "blind gradients"]
    assert len(set(kept.values())) == len(kept) == 6


def test_margins_are_counted_in_bins_that_end_at_0():
    records = bench.load_results(RESULTS / "digits-linf")
    records = records[records["defense"] == "adp"]
    worst = bench.worst_per_image(records)
    bins = margin_bins(records, worst)
    clean = records[records["attack"] == "none"].set_index("image")["margin"]
    margin = records.set_index(["image", "attack", "view"])["margin"]
    attacked = np.array([margin[row.image, row.attack, row.view] for row in worst.itertuples()])
    assert 0 in set(bins["from"])
    assert np.allclose(np.diff(bins["from"]), bins["to"].iloc[0] - bins["from"].iloc[0])
    assert (bins["to"].to_numpy()[:-1] == bins["from"].to_numpy()[1:]).all()
    for name, values in (("clean", clean.to_numpy()), ("worst", attacked)):
        assert bins[name].sum() == pytest.approx(1)
        assert bins.loc[bins["from"] < 0, name].sum() == pytest.approx((values < 0).mean())
    drawn = {tuple(100 * bins["clean"]), tuple(100 * bins["worst"])}
    stairs = [patch for patch in margins(bins).patches if hasattr(patch, "get_data")]
    assert {tuple(patch.get_data().values) for patch in stairs} == drawn


def test_margins_of_equal_images_and_of_none():
    frame = pd.DataFrame({"training_seed": 0, "attack": ["none", "a"], "view": "v", "image": 0, "margin": [2.0, 2.0]})
    worst = pd.DataFrame(
        {"training_seed": [0], "image": 0, "attack": "a", "view": "v", "defense": "d", "norm": "Linf", "eps": "1/5",
         "targets": "none"}
    )  # fmt: skip
    bins = margin_bins(frame, worst)
    assert bins[["clean", "worst"]].to_numpy().tolist() == [[1.0, 1.0]]
    assert bins["from"][0] <= 2 <= bins["to"][0]
    none = margin_bins(frame.assign(margin=np.nan), worst)
    assert none.empty
    with pytest.raises(UserError, match="no image has the margins"):
        margins(none)
    with pytest.raises(UserError, match="several defenses or threats"):
        margin_bins(frame, pd.concat([worst, worst.assign(eps="1/3")]))
