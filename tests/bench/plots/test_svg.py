"""Pictures as SVG are small and show what matplotlib drew."""

import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

import bench
from bench.plots import claims, clean_robust, style
from bench.plots.style import file_bytes
from bench.plots.svg import compact

RESULTS = Path(__file__).parents[3] / "results"
HREF = "{http://www.w3.org/1999/xlink}href"


def drawn(svg: str):
    """(marks, segments of lines, texts) of an SVG: their look with their place, in the order of their places."""
    marks, lines, texts = [], [], []

    def visit(element, look):
        kind, here = element.tag.rpartition("}")[2], element.attrib.get("style", look)
        if kind == "use":
            marks.append((element.attrib[HREF], here, float(element.attrib["x"]), float(element.attrib["y"])))
        if kind == "path" and "fill: none" in here:
            at, numbers = element.attrib["d"].split(), []
            for piece in at:
                if piece == "M" and numbers:
                    lines.append((here, *numbers))
                    numbers = []
                numbers += [float(piece)] if piece not in "MLCQz" else []
            lines.append((here, *numbers))
        if kind == "text":
            texts.append((element.text, here, *(float(element.attrib.get(name, 0)) for name in "xy")))
        for child in element:
            visit(child, here)

    visit(ET.fromstring(svg), "")
    return sorted(marks), sorted(lines), sorted(texts)


def same(one, other) -> bool:
    """Whether looks are equal and places differ by less than a hundredth of a point."""
    pairs = zip(one, other, strict=True)
    return all(
        len(a) == len(b)
        and all(x == y if isinstance(x, str) else abs(x - y) <= 0.0051 for x, y in zip(a, b, strict=True))
        for a, b in pairs
    )


def test_a_small_svg_shows_the_same():
    figure = clean_robust(bench.leaderboard(RESULTS / "digits-defenses")).get_figure()
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg")
    plain = buffer.getvalue().decode()
    small = compact(plain)
    assert len(small) < 0.75 * len(plain)
    for one, other in zip(drawn(plain), drawn(small), strict=True):
        assert len(one) > 10
        assert same(sorted(one, key=rounded), sorted(other, key=rounded))


def rounded(row):
    return [x if isinstance(x, str) else round(x, 1) for x in row]


def test_texts_and_images_are_left_as_they_are():
    text = '<svg><text x="1.23456" transform="rotate(-0 1.2 3)">x="1.23456" d="0.55555 1" 3.14159</text></svg>'
    assert compact(text) == '<svg><text x="1.23">x="1.23456" d="0.55555 1" 3.14159</text></svg>'
    image = '<image xlink:href="data:image/png;base64,d=1.23456" width="1.23456"/>'
    assert compact(image) == image


def test_groups_that_change_nothing_are_left_out():
    svg = '<svg>\n<g id="a">\n<g clip-path="url(#c)">\n<g>\n<path d="M 0 0"/>\n</g>\n</g>\n<g id="b" style="x">'
    assert compact(f"{svg}<text>a</text></g>\n</g>\n</svg>") == (
        '<svg>\n<g clip-path="url(#c)">\n<path d="M 0 0"/>\n</g>\n<g id="b" style="x"><text>a</text></g>\n</svg>'
    )


def test_claims_of_all_boards_are_at_most_60_kB():
    table = bench.claims_table(RESULTS / "mnist-defenses")
    known = table[table["claimed_robust"].notna() & table["measured_robust"].notna()]
    rng = np.random.default_rng(0)
    many = known.sample(750, replace=True, random_state=0).assign(verdict="not comparable")
    many = many.assign(claimed_robust=rng.random(750), measured_robust=rng.random(750))
    svg = file_bytes(claims(many).get_figure(), "svg")
    assert len(svg) <= 60_000
    assert svg.count(b"<use ") >= 750


def test_marks_say_their_look_once():
    svg = file_bytes(claims(bench.claims_table(RESULTS / "mnist-defenses")).get_figure(), "svg").decode()
    marks = re.findall(r"<use [^>]*>", svg)
    assert sum("style" in mark for mark in marks) < len(marks) / 2
