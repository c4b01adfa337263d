"""The page of attacks: numbers of the summary, parameters of the cells, images that one attack alone breaks."""

import json
import re

import pytest
from fake_board import deterministic, line, result, stochastic, write
from site_pages import COMMITTED, Page, many

from bench import load_results, summary
from bench.analysis.caveats import split_warnings
from bench.site.attacks_page import attacks_page
from bench.site.build import build_site
from bench.site.collect import collect
from bench.site.plots import Plots
from bench.spec.view_words import view_words


def sections(source):
    """Of each attack: (name, text above the table, [(defense, view, share, texts of the cells)])."""
    for part in source.split("<h2 ")[1:]:
        name = Page(f"<h2 {part.partition('</h2>')[0]}</h2>").elements[0][2]
        above, _, table = part.partition("</h2>")[2].partition("<table")
        lines = []
        for text in re.findall(r"<tr.*?</tr>", table.partition("<tbody>")[2], re.DOTALL):
            page = Page(text)
            share = re.search(r'</th><td data-v="([^"]+)"', text)
            texts = [t for tag, _, t in page.elements if tag == "td"]
            label = page.all("a")[0][2]
            _, view, words = page.all("small")[0]
            assert words == view_words(view["title"])
            lines.append((label, view["title"], float(share[1]) if share else None, texts))
        yield name, re.sub("<[^>]+>", "", above), lines


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_lines_are_those_of_the_summary(folder, site):
    frame = summary(folder)
    frame = frame[frame["attack"] != "worst case"].replace(
        {"attack": {"none": "clean images", "uniform": "uniform noise"}}
    )
    expected = {(r.attack, r.defense, r.view): r for r in frame.itertuples()}
    found = {}
    source = (site / f"b/{folder.name}/attacks.html").read_text()
    for name, _, lines in sections(source):
        for label, view, share, texts in lines:
            row = found[name, label, view] = expected[name, label, view]
            assert share == row.robust_mean
            assert texts[0].startswith(f"{100 * share:.1f} [{100 * row.robust_low:.1f}, {100 * row.robust_high:.1f}]")
            if name not in ("clean images", "uniform noise"):
                random = "Rob(5)" in source
                assert texts[1 + random] == f"{100 * row.asr:.1f}"
    assert found.keys() == expected.keys()


def test_parameters_stand_in_full_above_the_table(site):
    lines = [
        json.loads(t) for file in (COMMITTED[1] / "parts").glob("*/cells.jsonl") for t in file.read_text().splitlines()
    ]
    above = {name: text for name, text, _ in sections((site / "b/digits-gan/attacks.html").read_text())}
    checked = 0
    for cell in lines:
        name, parameters, library = cell["identity"]["attack"]
        if cell["attack"] in above:
            assert f"{name} of {library}: " in above[cell["attack"]]
            for key, value in parameters.items():
                assert f"{key} = {value}" in above[cell["attack"]]
                checked += 1
        for text in cell["warnings"]:
            assert text in (site / "b/digits-gan/attacks.html").read_text()
    assert checked


def test_images_that_an_attack_alone_breaks_are_counted_and_linked(site):
    frame = load_results(COMMITTED[0])
    frame = frame[~frame["attack"].isin(["none", "uniform"])]
    broken = frame[(frame["accuracy"] < 0.5) & (frame["clean"] > 0.5)]
    counts = broken.groupby(["defense", "image"])["attack"].agg(["size", "first"])
    alone = counts[counts["size"] == 1].reset_index()
    checked = 0
    for name, _, lines in sections((site / "b/digits-audit/attacks.html").read_text()):
        if name in ("clean images", "uniform noise"):
            continue
        for label, _, _, texts in lines:
            own = alone[(alone["defense"] == label) & (alone["first"] == name)]["image"].tolist()
            count, _, listed = texts[-2].partition(":")
            assert int(count) == len(own)
            assert listed.replace("…", "").split() == [str(i) for i in own[:6]]
            checked += len(own)
    assert checked > 50


def test_what_is_unlike_stands_in_its_own_row(tmp_path):
    short, long = ["steps = 5 is short"], ["steps = 5 is short", "of own"]
    rows = [
        result(line("a", "none"), [1] * 6),
        result(line("a", "pgd", warnings=short), [0] * 6),
        result(line("b", "none"), [1] * 6),
        result(line("b", "pgd", warnings=long), [1, 0, 0, 0, 0, 0]),
        *stochastic(),
    ]
    build_site([write(tmp_path / "two", rows)], tmp_path / "site")
    found = {
        name: (above, lines) for name, above, lines in sections((tmp_path / "site/b/two/attacks.html").read_text())
    }
    above, lines = found["pgd"]
    assert "steps = 5 is short" in above
    assert [texts[-1] for *_, texts in lines] == ["breaks most images; of own", "breaks most images"]
    assert split_warnings("a | b")[0] == ["a", "b"]
    assert [texts[1] for *_, texts in lines] == ["one draw"] * 2
    assert found["apgd"][1][0][3][1] != "one draw"


def test_a_large_board_has_a_page_that_can_be_opened(tmp_path):
    site = collect([many(tmp_path / "many", 200, 30)], "t", gallery=0, compared=False)
    page = attacks_page(site, site.boards[0], Plots())
    assert len(page.encode()) < 1_500_000
    assert "lines; the others are on the pages of their defenses." in page


def test_a_row_leads_to_its_attacks(tmp_path):
    build_site([write(tmp_path / "one", deterministic())], tmp_path / "site")
    links = [a["href"] for _, a, _ in Page((tmp_path / "site/b/one/plain.html").read_text()).all("a")]
    assert {"attacks.html#a-apgd", "attacks.html#a-square"} <= {*links}
    assert "attacks.html" in (tmp_path / "site/b/one/index.html").read_text()
