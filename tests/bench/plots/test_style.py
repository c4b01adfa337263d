"""All pictures: colours that stand out, sound SVG, the same bytes each time, axes of one's own."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from boards import ROOT
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import bench
from bench.plots import (
    attacks,
    clean_robust,
    ranks,
    save,
    style,
)
from bench.plots.style import _DARK, COLOURS, FORMATS, INK, MUTED, PAPER, file_bytes
from defenses.utils.errors import UserError

HOSTILE = "<script>alert('x')</script> $\\alpha & \"é\" ‮"


def test_two_pictures_in_one_figure_have_a_legend_each(leaders):
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    ranks(leaders, ax=left)
    clean_robust(leaders, ax=right)
    assert not figure.legends
    texts = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in (left, right)]
    assert texts == [["clean accuracy", "worst case, 95 %"], ["deterministic", "random"]]


@pytest.mark.parametrize("form", FORMATS)
def test_files_are_the_same_bytes_each_time(leaders, form, tmp_path):
    first, second = (file_bytes(ranks(leaders).get_figure(), form) for _ in range(2))
    assert first == second
    assert save(ranks(leaders).get_figure(), tmp_path / f"a.{form}").read_bytes() == first
    with pytest.raises(UserError, match=r"end its name in \.svg, \.pdf or \.png"):
        save(ranks(leaders).get_figure(), tmp_path / "a.jpg")


def test_svg_is_sound_whatever_the_names_are(leaders):
    frame = leaders.assign(defense=[HOSTILE, "x" * 200, "../../a", "二"])
    svg = file_bytes(ranks(frame).get_figure(), "svg")
    root = ET.fromstring(svg)
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not kinds & {"script", "a", "foreignObject", "metadata"}
    drawn = [t.text for t in root.iter() if t.tag.endswith("}text")]
    assert any(text and text.startswith("<script>alert('x')<") for text in drawn)
    assert b"prefers-color-scheme: dark" in svg
    links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
    assert all(link.startswith(("#", "data:")) for link in links)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast of two colours, in [1, 21]."""
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(x)] for x in (one, other)]
    light, dark = sorted((float(np.dot([0.2126, 0.7152, 0.0722], x)) for x in linear), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_stand_out_on_both_backgrounds():
    for colour in (*COLOURS, INK, MUTED):
        assert contrast(colour, PAPER) >= 3, colour
        assert contrast(_DARK.get(colour, colour), _DARK[PAPER]) >= 3, colour


def test_axes_and_style_of_ones_own(leaders):
    figure = Figure()
    ax = figure.add_subplot()
    assert ranks(leaders, ax=ax) is ax
    with style():
        import matplotlib as mpl

        assert mpl.rcParams["svg.fonttype"] == "none"
    assert mpl.rcParams["svg.fonttype"] != "none"


def test_a_figure_of_ones_own_makes_room_for_its_title(leaders):
    """Axes are placed for good in files alone: a title is above the legend, and panels keep their labels apart."""
    summary = bench.summary(ROOT / "results/digits-linf")
    ax = attacks(summary, defense="adp")
    ax.set_title("a title")
    ax.get_figure().draw_without_rendering()
    title, legend = (artist.get_window_extent() for artist in (ax.title, ax.get_figure().legends[0]))
    assert not title.overlaps(legend)
    both = Figure(figsize=(9, 4), layout="constrained")
    left, right = both.subplots(1, 2)
    clean_robust(leaders, ax=left)
    attacks(summary, defense="adp", ax=right)
    both.draw_without_rendering()
    assert min(label.get_window_extent().x0 for label in right.get_yticklabels()) > left.get_window_extent().x1


@pytest.mark.parametrize("width", [60, None, 200])
@pytest.mark.parametrize("name", ["attacks", "draws", "margins"])
def test_placed_pictures_are_not_cut_off(name, width):
    """Axes with their texts lie within the figure, and the legend above them."""
    figure = bench.figure(name, ROOT / "results/digits-linf", defense="adp")._final(width)
    figure.draw_without_rendering()
    ax, whole = figure.axes[0].get_tightbbox(), figure.bbox
    assert ax.x0 >= 0
    assert ax.y0 >= 0
    assert ax.x1 <= whole.x1
    assert figure.legends[0].get_window_extent().y0 >= figure.axes[0].get_window_extent().y1
    assert figure.legends[0].get_window_extent().y1 <= whole.y1
