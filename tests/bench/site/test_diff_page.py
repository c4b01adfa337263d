"""The page on an earlier run: its numbers are those of `bench.diff_runs`."""

import json
import re

import pytest
from boards import purebench_here
from fake_board import HOSTILE, deterministic, line, recorded, result, stochastic
from site_pages import Page, pages

import bench
from bench.site.build import build_site, check_site
from bench.spec.view_words import view_words


def board(path, results, **more):
    return recorded(path, results, [r.line for r in results], **more)


def changed(name="plain"):
    results = deterministic(name)
    results[2] = result(line(name, "apgd"), [0, 1, 1, 0, 1, 0])
    return results


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An old run, a new one, and the site of the new one beside another board."""
    folder = tmp_path_factory.mktemp("runs")
    old = board(folder / "old", [*deterministic(), *stochastic()])
    new = board(folder / "new", [*changed(), *stochastic()], run="b")
    other = board(folder / "other", deterministic("third"), board="other", title="Other")
    build_site([new, other], folder / "site", against=[old])
    return old, new, other, folder / "site"


def test_numbers_are_those_of_diff_runs(runs):
    old, new, _, site = runs
    difference = bench.diff_runs(old, new)
    expected = difference.rows[difference.rows["state"] != "same"].to_dict("records")
    source = (site / "b/fake/diff.html").read_text()
    rows = re.findall(r"<tr><th scope=.row.*?</tr>", source.partition('id="diff"')[2].partition("</table>")[0])
    assert len(rows) == len(expected) == 2
    for text, row in zip(rows, expected, strict=True):
        cells = [(a, t) for tag, a, t in Page(text).elements if tag in ("th", "td")]
        shown = [row["defense"], row["attack"], view_words(row["view"]), row["state"]]
        assert [t for _, t in cells[:4]] == shown
        numbers = [float(cells[at][0]["data-v"]) for at in (5, 6, 7)]
        assert numbers == [row["old_mean"], row["new_mean"], row["difference"]]
        assert [float(cells[7][0][name]) for name in ("data-l", "data-h")] == [row["low"], row["high"]]
        assert [int(t) for _, t in cells[8:12]] == [row[name] for name in ("differing", "tied", "lost", "won")]
        of = difference.images[
            (difference.images["attack"] == row["attack"]) & (difference.images["view"] == row["view"])
        ]
        for at, flip in ((12, "lost"), (13, "won")):
            assert [int(i) for i in cells[at][1].split()] == of[of["flip"] == flip]["image"].tolist()
    assert f"{difference.cells['same']} the same bits" in source
    assert "1 other verdicts" in source
    assert "2 of 10 rows" in source


def test_only_boards_with_an_earlier_run_have_the_page(runs):
    found = pages(runs[3])
    assert "b/fake/diff.html" in found
    assert "b/other/diff.html" not in found
    assert [a["href"] for _, a, _ in found["b/fake/index.html"].all("a")].count("diff.html") == 1
    assert "diff.html" not in [a["href"] for _, a, _ in found["b/other/index.html"].all("a")]
    links = [a["href"] for _, a, _ in found["b/fake/diff.html"].all("a") if "://" not in a["href"]]
    for link in links:
        target, _, anchor = link.partition("#")
        assert not target or (runs[3] / "b/fake" / target).is_file(), link
        assert not anchor or anchor in (found["b/fake/diff.html"].ids if not target else [anchor])
    assert str(runs[0].parent) not in "".join(page.source for page in found.values())


def test_the_same_runs_are_the_same_bytes_and_others_are_not(runs, tmp_path):
    old, new, other, site = runs
    assert check_site([new, other], site, against=[old]) == []
    assert "b/fake/diff.html is not part of it" in check_site([new, other], site)
    build_site([new], tmp_path / "site")
    assert not (tmp_path / "site/b/fake/diff.html").exists()
    build_site([new], tmp_path / "site", against=[old])  # is not taken for the site without it
    assert (tmp_path / "site/b/fake/diff.html").is_file()
    assert json.loads((tmp_path / "site/data/site.json").read_text())["against"][0]["folder"] == "old"


def test_hostile_names_are_harmless(tmp_path):
    old, new = board(tmp_path / "a", deterministic(HOSTILE)), board(tmp_path / "b", changed(HOSTILE))
    assert purebench_here("site", new, "--against", old, "--out", tmp_path / "s", "--quiet").returncode == 0
    source = (tmp_path / "s/b/fake/diff.html").read_text()
    assert Page(source)
    assert "<script>alert" not in source
    assert "\x1b" not in source
    assert "\u202e" not in source


def test_bad_input_is_one_line_and_writes_nothing(runs, tmp_path):
    old, new, other, _ = runs
    (tmp_path / "empty").mkdir()
    for results, against, text in [
        ([new], [other], 'is of the board "other", of which the site has no results; it has fake'),
        ([new], [tmp_path / "empty"], "holds no results"),
        ([new], [tmp_path / "gone"], "holds no results"),
        ([new], [old, new], 'the board "fake" has several results folders'),
    ]:
        done = purebench_here("site", *results, "--against", *against, "--out", tmp_path / "s")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert text in done.stderr
        assert not (tmp_path / "s").exists()
