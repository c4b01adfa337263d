"""Pictures of audits, radii and corruptions show the numbers of their frames."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bench
from bench.plots import (
    audit,
    certified,
    checks,
    convergence,
    corruptions,
    radius,
)
from bench.plots.checks import check_rows
from bench.plots.curves import effort_lines
from bench.stats.proportions import wilson
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"


def test_audits(audits):
    ax = audit(audits)
    symbols = [t.get_text() for t in ax.texts]
    assert symbols.count("✗") == (audits["status"] == "fail").sum()
    assert symbols.count("✓") == (audits["status"] == "pass").sum()
    curve = radius(audits).lines[0].get_xydata()
    assert np.allclose(curve, [[0.1, 84.5], [0.2, 61.5], [0.3, 12.5], [0.5, 0], [1, 0]])
    effort = convergence(audits).lines[0].get_ydata()
    assert np.allclose(effort, [71, 61.5, 61.5, 59])
    for draw in (audit, radius, convergence):
        with pytest.raises(UserError, match=r"^no audit"):
            draw(audits.head(0))


def test_efforts_are_of_one_audit(audits):
    """Two trainings of a defense have an audit each; at two radii there is no picture."""
    one = audits[audits["defense"] == audits["defense"].iloc[0]]
    other = one.assign(fingerprint="other", numbers=[dict.fromkeys(of, 0.25) for of in one["numbers"]], n_images=7)
    (line,) = effort_lines(pd.concat([one, other[other["check"] != "iterative against single step"]]))
    assert line[1:3] == ([1, 2, 3], [0.25] * 3)
    assert np.allclose(line[3], wilson(np.array([0.25] * 3) * 7, 7))
    with pytest.raises(UserError, match="several threats or data sets"):
        convergence(pd.concat([one, one.assign(eps="1/10")]))


def test_checks_fail_where_their_interval_is_in_the_shade(audits):
    ax = checks(audits)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert len(names) == 13
    shades = {names[round(p.get_y() + 0.46)]: (p.get_x(), p.get_x() + p.get_width()) for p in ax.patches}
    status = audits.set_index(["defense", "check"])["status"]
    seen = 0
    for container in ax.containers:
        line, _, (bars,) = container
        for (_, y), ends in zip(line.get_xydata(), bars.get_segments(), strict=True):
            low, high = shades[names[round(y)]]
            inside = bool(low < ends[:, 0].min() and ends[:, 0].max() < high)
            assert inside == (status[container.get_label(), names[round(y)]] == "fail"), (container.get_label(), y)
            seen += 1
    assert seen == len(check_rows(audits)) > 60
    adp = check_rows(audits).set_index(["defense", "check"]).loc[("adp", "white box against SPSA")]
    assert adp[["value", "limit", "measured"]].tolist() == [-0.0434375, 0.01, "difference"]
    with pytest.raises(UserError, match="no audits with numbers"):
        checks(audits[audits["check"] == "logits and no softmax"])
    with pytest.raises(UserError, match="13 defenses are too many"):
        checks(pd.concat([audits[audits["defense"] == "adp"].assign(defense=str(i)) for i in range(13)]))


def test_corruptions_and_radii():
    frame = bench.load_corruptions(RESULTS / "corruptions-digits")
    ax = corruptions(frame)
    single = frame[(frame["defense"] == "adp") & ~frame["corruption"].isin(("clean", "mean"))]
    fifth = single[single["severity"].astype(str) == "5"]["accuracy"].mean()
    assert np.isclose(ax.lines[0].get_ydata()[5], 100 * fifth)
    radii = bench.load_smoothing(RESULTS / "smooth-digits-smoothing")
    assert np.allclose(certified(radii).lines[0].get_ydata(), 100 * radii["certified"])
    with pytest.raises(UserError, match="13 lines are too many for a picture; choose at most 12"):
        corruptions(pd.concat([frame[frame["defense"] == "adp"].assign(defense=str(i)) for i in range(13)]))


def test_the_radius_has_a_line_at_chance(audits):
    chance = audits.set_index("check").loc["chance at Linf 1/2", "numbers"].iloc[0]["limit"]
    lines = [line.get_ydata() for line in radius(audits).lines if line.get_linestyle() == ":"]
    assert [list(line) for line in lines] == [[100 * chance] * 2]
    assert not [
        line for line in radius(audits[audits["check"] != "chance at Linf 1/2"]).lines if line.get_linestyle() == ":"
    ]
