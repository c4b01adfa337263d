"""Names of points cover no other name, no interval and no point; what finds no place is told below the axes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

import bench
from bench.plots import claims, clean_robust, cost
from bench.plots.labels import name_points
from bench.plots.style import file_bytes, of_width, style

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture(scope="module", params=["digits-defenses", "digits-linf"])
def leaders(request):
    return bench.leaderboard(RESULTS / request.param)


def covered(ax) -> list[tuple[str, str]]:
    """Pairs of a text at a point and what it covers: another text, a point of a line or interval, a marker."""
    figure = ax.get_figure()
    figure.draw_without_rendering()
    texts = [(t.get_text(), t.get_window_extent()) for t in ax.texts if t.get_text()]
    found = [(a, b) for i, (a, one) in enumerate(texts) for b, other in texts[i + 1 :] if one.overlaps(other)]
    lines = [(line.get_transform(), line.get_xydata(), line.get_linestyle() != "None") for line in ax.lines]
    for collection in ax.collections:
        if isinstance(collection, LineCollection):
            lines += [(collection.get_transform(), path, True) for path in collection.get_segments()]
    for transform, path, joined in lines:
        at = transform.transform(path)
        along = np.linspace(0, 1, 2001)[:, None, None]
        points = (at[:-1] + along * (at[1:] - at[:-1])).reshape(-1, 2) if joined and len(at) > 1 else at
        found += [(text, "a line" if joined else "a point") for text, box in texts if box.count_contains(points)]
    return found


def told(ax) -> str:
    return " ".join(t.get_text() for t in ax.texts).replace("\u00a0", " ").replace("\n", " ")


@pytest.mark.parametrize("draw", [clean_robust, cost])
@pytest.mark.parametrize("width", [None, 60, 180])
def test_labels_cover_nothing(leaders, draw, width):
    with of_width(width):
        ax = draw(leaders)
    assert covered(ax) == []
    for name in leaders["defense"]:
        assert name[:15] in told(ax), name


def test_labels_of_claims_cover_nothing():
    table = bench.claims_table(RESULTS / "mnist-defenses")
    ax = claims(table.assign(verdict="consistent"))
    assert len([t for t in ax.texts if t.get_text()]) > 10
    assert covered(ax) == []


def test_the_check_sees_a_name_on_an_interval(leaders):
    ax = clean_robust(leaders)
    row = leaders.iloc[0]
    ax.annotate("x", (100 * row["clean_mean"], 100 * row["worst_mean"]), ha="center", va="center")
    assert {("x", "a line"), ("x", "a point")} <= set(covered(ax))


def test_percent_ends_at_100(leaders):
    ax = clean_robust(leaders.assign(clean_mean=1.0))
    assert ax.get_xlim()[1] == 100
    assert not any(line.get_clip_on() for line in ax.lines if line.get_marker() not in ("None", "", None))


def test_points_without_a_place_are_named_below():
    """Twenty points in one place: few get a name or a number, and the figure grows by the lines that tell the rest."""
    with style():
        figure = Figure(figsize=(3, 3), layout="constrained")
        ax = figure.add_subplot()
        names = [f"defense {i}" for i in range(20)]
        ax.plot([0.5] * 20, [0.5] * 20, "o")
        without = name_points(ax, [0.5] * 19 + [np.nan], [0.5] * 20, names)
        assert covered(ax) == []
    assert 0 < len(without) < 18
    assert all(name in told(ax) for name in names[:-1])
    assert names[-1] not in told(ax)  # it is at no place
    assert figure.get_figheight() > 3
    assert "1 defense" in told(ax)
    assert "not named: " + ", ".join(without) in told(ax)


def test_the_same_bytes_each_time(leaders):
    first, second = (file_bytes(clean_robust(leaders).get_figure(), "svg") for _ in range(2))
    assert first == second
