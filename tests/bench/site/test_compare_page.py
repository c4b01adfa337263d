"""Pages of pairs: numbers of `bench.pairs`, images of the records."""

import json
import re
from itertools import pairwise

import pandas as pd
import pytest
from fake_board import deterministic, failed, line, result, write
from site_pages import COMMITTED, Page, many, write_board_pages

from bench import load_results, pairs
from bench.site.build import build_site


def lines(source):
    """Of each pair: (labels, attributes of its row, texts of its cells, attributes of the difference)."""
    for text in re.findall(r"<tr data-pair.*?</tr>", source, re.DOTALL):
        page = Page(text)
        cells = [(a, t) for tag, a, t in page.elements if tag == "td"]
        yield (
            tuple(t for tag, _, t in page.elements if tag == "th"),
            page.all("tr")[0][1],
            [t for _, t in cells],
            cells[2][0],
        )


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_numbers_are_those_of_pairs(folder, site):
    frame = pairs(folder)
    both = {(r.a, r.b): (r.difference, r.low, r.high, r.only_a, r.only_b, r.p_value) for r in frame.itertuples()}
    both |= {(r.b, r.a): (-r.difference, -r.high, -r.low, r.only_b, r.only_a, r.p_value) for r in frame.itertuples()}
    found = list(lines((site / f"b/{folder.name}/compare.html").read_text()))
    assert len(found) == len(frame)
    for names, _, texts, numbers in found:
        difference, low, high, only_a, only_b, p = both[names]
        assert float(numbers["data-v"]) == pytest.approx(difference, abs=1e-12)
        assert float(numbers["data-l"]) == pytest.approx(low, abs=1e-12)
        assert float(numbers["data-h"]) == pytest.approx(high, abs=1e-12)
        assert texts[2].startswith(f"{100 * float(numbers['data-v']):+.1f} [")
        assert texts[3:5] == [f"{only_a:.0f}", f"{only_b:.0f}"]
        assert texts[5] == ("< 0.0001" if p < 1e-4 else f"{p:.4f}")
        better = names[0] if low > 0 else names[1] if high < 0 else None
        assert texts[6] == (f"{better} withstands more" if better else "cannot be told apart")


def test_images_that_differ_are_those_of_the_records(tmp_path):
    other = [result(line("other", a), r) for a, r in (("none", [1] * 6), ("apgd", [0, 1, 1, 0, 1, 0]))]
    rows = [*deterministic(), *other]
    folder = write(tmp_path / "two", rows)
    build_site([folder], tmp_path / "site")
    frame = load_results(folder)
    frame = frame[~frame["attack"].isin(["uniform"])]
    worst = frame.groupby(["defense", "image"])["accuracy"].min().unstack(0)
    (((a, b), attributes, _, _),) = lines((tmp_path / "site/b/two/compare.html").read_text())
    only = [worst.index[(worst[x] == 1) & (worst[y] == 0)].tolist() for x, y in ((a, b), (b, a))]
    assert [[int(i) for i in attributes[name].split()] for name in ("data-a", "data-b")] == only
    assert all(only)


def test_beyond_sixty_rows_neighbours_are_compared(tmp_path):
    board = write_board_pages(many(tmp_path / "many", 62, 3), tmp_path / "site")
    source = (board / "compare.html").read_text()
    found = [names for names, *_ in lines(source)]
    labels = re.findall(r'<th scope="row" class="t" title="([^"]+)"', (board / "index.html").read_text())
    assert found == list(pairwise(labels))
    assert "only those are compared that follow each other" in source


def test_pairs_that_do_not_compare_say_why(tmp_path):
    gap = [
        result(line("gap", "none"), [1] * 6),
        result(line("gap", "apgd"), [1] * 6, problems=["", "", "lost", "", "", ""]),
    ]
    folder = write(tmp_path / "gap", [*deterministic(), *gap])
    build_site([folder], tmp_path / "site")
    (found,) = lines((tmp_path / "site/b/gap/compare.html").read_text())
    assert found[2][2] == ""
    assert "has verdicts of 1 images that" in found[2][6]
    assert pairs(folder)["status"].iloc[0] == found[2][6]


def test_without_verdicts_there_are_no_pairs(tmp_path):
    build_site([write(tmp_path / "one", deterministic())], tmp_path / "site")
    assert "No two defenses of this board have a worst case yet." in (tmp_path / "site/b/one/compare.html").read_text()
    rows = [failed(line("a", "none"), "error", "x"), failed(line("a", "b"), "error", "x")]
    build_site([write(tmp_path / "none", rows)], tmp_path / "other")
    assert "No two defenses" in (tmp_path / "other/b/none/compare.html").read_text()


def test_several_trainings_have_no_counts_of_images(tmp_path):
    rows = [r for name in ("a", "b") for s in (0, 1) for r in deterministic(name, training_seed=s)]
    folder = write(tmp_path / "seeds", rows)
    manifest = {f"{n}#{s}": {"name": n, "training_seed": s} for n in "ab" for s in (0, 1)}
    (folder / "manifest.json").write_text(json.dumps({"defenses": manifest}))
    build_site([folder], tmp_path / "site")
    (found,) = lines((tmp_path / "site/b/seeds/compare.html").read_text())
    assert found[2][3:6] == ["several trainings", "several trainings", ""]
    assert pd.isna(pairs(folder)["only_a"].iloc[0])
