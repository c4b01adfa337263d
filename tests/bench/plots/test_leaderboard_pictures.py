"""Pictures of the rows of a leaderboard, and of claims, show the numbers of their frames."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import points, texts_overlap

import bench
from bench.plots import (
    claims,
    clean_robust,
    contraction,
    cost,
    ranks,
)
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"


def test_ranks_shows_the_leaderboard(leaders):
    ax = ranks(leaders)
    clean, worst = points(ax)
    assert np.allclose(clean[:, 0], 100 * leaders["clean_mean"])
    assert np.allclose(worst[:, 0], 100 * leaders["worst_mean"])
    assert [t.get_text().split(" · ")[0] for t in ax.get_yticklabels()] == list(leaders["defense"])
    (bars,) = ax.containers
    ends = np.array([segment[:, 0] for segment in bars[2][0].get_segments()])
    assert np.allclose(ends, 100 * leaders[["worst_low", "worst_high"]].to_numpy())


def test_groups_of_ranks_that_overlap_share_a_shade(leaders):
    """Ranges 1-2, 1-2, 3-3 are two groups, of which the first is shaded; a row without a rank is in none."""
    frame = leaders.assign(rank_low=[1, 1, 3, None], rank_high=[2, 2, 3, None]).astype({"rank_low": "Int64"})
    ax = ranks(frame.astype({"rank_high": "Int64"}))
    spans = [(p.get_y(), p.get_y() + p.get_height()) for p in ax.patches]
    assert spans == [(-0.5, 1.5)]
    assert ax.get_yticklabels()[3].get_text().endswith("no rank")


def test_rows_of_two_threats_are_refused(leaders):
    with pytest.raises(UserError, match="the rows differ in eps; choose those of one board and threat"):
        ranks(pd.concat([leaders, leaders.assign(eps="1/10")]))
    with pytest.raises(UserError, match="no row has a worst case"):
        clean_robust(leaders.head(0))
    with pytest.raises(UserError, match='unit is "hours"'):
        cost(leaders, unit="hours")


def test_one_row_alone_is_drawn_without_a_warning(leaders):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cost(leaders.head(1).assign(evaluations_per_image=0.1)).get_xscale() == "log"


@pytest.mark.parametrize("board", ["digits-linf", "digits-defenses"])
@pytest.mark.parametrize("draw", [ranks, clean_robust, cost])
def test_texts_do_not_overlap(board, draw):
    figure = draw(bench.leaderboard(RESULTS / board)).get_figure()
    assert texts_overlap(figure) == []


def test_clean_robust_and_cost_show_the_leaderboard(leaders):
    for draw, column, factor in ((clean_robust, "clean_mean", 100), (cost, "evaluations_per_image", 1)):
        shown = np.concatenate(points(draw(leaders)))
        wanted = np.column_stack([factor * leaders[column], 100 * leaders["worst_mean"]])
        assert np.allclose(sorted(map(tuple, shown)), sorted(map(tuple, wanted)))


def test_ranks_are_not_cut_off(leaders):
    frame = leaders.assign(defense=["a very long name of a defense " * 3, "b", "c", "d"])
    labels = [label.get_text() for label in ranks(frame).get_yticklabels()]
    assert labels[0].endswith("… · 1")
    assert labels[1] == "b · 2"


def test_claims_stand_at_claimed_and_measured():
    table = bench.claims_table(RESULTS / "mnist-defenses")
    frame = table[table["claimed_robust"].notna() & table["measured_robust"].notna()]
    shown = np.concatenate(points(claims(table)))
    wanted = 100 * frame[["claimed_robust", "measured_robust"]].to_numpy()
    assert np.allclose(sorted(map(tuple, shown)), sorted(map(tuple, wanted)))
    with pytest.raises(UserError, match="no claim has a measured row"):
        claims(table.head(0))


def test_contraction_shows_rates_worst_cases_and_where_they_disagree():
    rates = pd.DataFrame({"defense": ["a", "b", "c"], "contraction": [0.2, 0.5, 1.0], "robust": [0.3, 0.2, 0.4]})
    _, rows = bench.contraction_agreement(rates.assign(robust_low=rates["robust"] - 0.1, robust_high=0.5))
    ax = contraction(rows)
    agrees, differs = points(ax)
    assert agrees.tolist() == [[0.2, 30.0], [0.5, 20.0]]
    assert differs.tolist() == [[1.0, 40.0]]
    assert {t.get_text() for t in ax.texts} == {"a", "b", "c"}
    assert len(points(contraction(rows[["defense", "contraction", "robust", "says"]]))) == 2  # without intervals
    with pytest.raises(UserError, match="no column contraction, robust, says"):
        contraction(rates[["defense"]])
    with pytest.raises(UserError, match="no rows"):
        contraction(rows[:0])
