"""Protocols beside the full one, on the page of a board and in its report: numbers of `bench.reproduction`."""

import json
import re
from collections import Counter

import pytest
from boards import ROOT
from fake_board import line, recorded, result
from site_pages import COMMITTED, Page, write_board_pages

from bench import build_report, claims_table, leaderboard, reproduction
from bench.site.build import build_site
from bench.site.claims_page import claims_page
from bench.site.collect import collect
from bench.site.plots import Plots
from bench.site.row import row_page
from bench.site.row_files import row_files
from bench.spec.cell import label_of

FOLDER = ROOT / "results/reproduction-digits"
TITLE = "Protocols beside the full one"
LEFT = "points left by its protocol [95 %]"
LEFTS = ["points_left", "points_left_low", "points_left_high"]


def share(row, name, form="{:.2f}"):
    value, low, high = (100 * row[f"{name}{end}"] for end in ("", "_low", "_high"))
    ends = f" [{form}, {form}]".format(low, high) if low == low else ""
    return f"{form.format(value)}{ends}" if value == value else "–"


def expected(frame):
    for row in frame.to_dict("records"):
        sides = (share(row, name) for name in ("claimed", "own", "full", "null", "clean"))
        yield [row["defense"], row["protocol"], *sides, share(row, "weakness", "{:+.2f}")]


def of_page(text):
    """Cells of the table on the page of a board."""
    table = text.partition(f"<h2>{TITLE}")[2].partition("</table>")[0]
    rows = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    return [[text for tag, _, text in Page(row).elements if tag in ("th", "td")] for row in rows[1:]]


def of_report(report):
    """Cells of the table of a report, of several one after the other."""
    (section,) = [s for s in json.loads(report.json())["sections"] if s["name"] == "claims"]
    return [row for b in section["blocks"] if b.get("title", "").startswith(TITLE) for row in b["rows"]]


@pytest.fixture(scope="module")
def report():
    return build_report(FOLDER)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return (write_board_pages(FOLDER, tmp_path_factory.mktemp("site")) / "index.html").read_text()


def test_every_number_is_that_of_reproduction(page, report):
    frame = reproduction(FOLDER)
    numbers = list(expected(frame))
    assert (frame["status"] == "ok").sum() > 2
    for shown in (of_page(page), of_report(report)):
        assert [row[: len(numbers[0])] for row in shown] == numbers
        for row, status in zip(shown, frame["status"], strict=True):
            assert row[-1].startswith(status)


def of_table(source, head):
    """Cells of the rows of the first table with a heading, by its heads."""
    table = next(t for t in re.findall(r"<table.*?</table>", source, re.DOTALL) if head in t)
    heads, *rows = ([text for tag, _, text in Page(r).elements if tag in ("th", "td")]
                    for r in re.findall(r"<tr.*?</tr>", table, re.DOTALL))  # fmt: skip
    return [dict(zip(heads, row, strict=True)) for row in rows]


def test_all_pages_and_frames_say_the_same_points(page):
    frame = reproduction(FOLDER).set_index(["defense", "protocol"])
    contents = collect([FOLDER], "t", gallery=0, compared=False)
    (board,) = contents.boards
    claimed = of_table(claims_page(contents, Plots()), LEFT)
    leaders = leaderboard(FOLDER).set_index("defense")
    table = claims_table(FOLDER)
    for defense, protocol, number in (
        ("adp", "adp-paper", "+11.71 [+7.32, +15.64]"),
        ("gdmp", "gdmp-paper", "+8.11 ["),
    ):
        weakness = [100 * frame.loc[defense, protocol][f"weakness{end}"] for end in ("", "_low", "_high")]
        text = share(frame.loc[defense, protocol], "weakness", "{:+.2f}")
        assert text.startswith(number)
        assert [row[7] for row in of_page(page) if row[:2] == [defense, protocol]] == [text]
        own = table[(table["defense"] == defense) & (table["kind"] == "claim")]
        assert [list(row) for row in own[LEFTS].to_numpy()] == [weakness] * len(own)
        assert leaders.loc[defense, LEFTS].tolist() == weakness
        assert leaders.loc[defense, "claim_evidence"] == "secondary"
        shown = [row for row in claimed if row["defense"] == defense]
        (found,) = [row for row in board.rows if row.label == defense]
        source = row_page(contents, board, found, Plots(), row_files(board, found))
        for rows in (shown, of_table(source, LEFT)):
            assert len(rows) == sum(table["defense"] == defense)
            assert Counter(row[LEFT] for row in rows) == {text: len(own), "protocol not run": len(rows) - len(own)}
        assert re.search(r"Its authors claim \d\d\.\d % \(secondary\) on cifar10 Linf 8/255", source)


def test_claims_of_later_works_are_marked_on_the_board_and_in_the_report(page, report):
    leaders = leaderboard(FOLDER)
    second = leaders[leaders["claim_evidence"] == "secondary"]
    assert {"adp", "gdmp"} <= set(second["defense"])
    claimed = second["claim_robust"].notna().sum()
    assert len(re.findall(r'<span class="w">cifar10 Linf 8/255 \(secondary\)</span>', page)) == claimed
    (section,) = [s for s in json.loads(report.json())["sections"] if s["name"] == "claims"]
    rows = [
        row for b in section["blocks"] if b.get("title", "").startswith("Claims of the authors") for row in b["rows"]
    ]
    assert [row[3] for row in rows if row[0] == "adp"] == ["70.01 (secondary)"]


def test_what_was_not_run_is_said_to_be_missing(page, report):
    for shown in (of_page(page), of_report(report)):
        missing = [row for row in shown if row[-1] != "ok"]
        assert len(missing) > 2
        assert all("not run" in row[-1] and row[3] == row[4] == row[7] == "–" for row in missing)


def test_a_report_on_some_defenses_has_their_protocols_alone():
    assert {row[0] for row in of_report(build_report(FOLDER, defenses=["adp", "jem"]))} == {"adp", "jem"}
    assert of_report(build_report(FOLDER, defenses=["undefended"])) == []


def test_boards_without_protocols_have_no_such_table(tmp_path):
    assert TITLE not in (write_board_pages(COMMITTED[1], tmp_path) / "index.html").read_text()
    assert of_report(build_report(COMMITTED[1])) == []


def test_each_threat_and_training_has_its_own(tmp_path):
    results = [
        result(line("plain", attack, eps=eps, training_seed=seed), right)
        for eps, broken in (("1/5", 1), ("3/10", 3))
        for seed in (0, 1)
        for attack, right in (
            ("none", [1] * 6),
            ("adp-paper: PGD", [0] * broken + [1] * (6 - broken)),
            ("standard: apgd", [0] * (broken + seed) + [1] * (6 - broken - seed)),
        )
    ]
    presets = [{"name": name, "source": "", "differs": ""} for name in ("adp-paper", "standard")]
    folder = recorded(tmp_path / "several", results, [r.line for r in results], presets=presets)
    frame = reproduction(folder)
    assert len(frame) == 4
    assert list(expected(frame)) == [row[:8] for row in of_report(build_report(folder, defenses=["plain"]))]
    build_site([folder], tmp_path / "site")
    for slug, eps in (("1-5", "1/5"), ("3-10", "3/10")):
        shown = of_page((tmp_path / f"site/b/fake-linf-{slug}/index.html").read_text())
        assert [row[:8] for row in shown] == list(expected(frame[frame["eps"] == eps]))
        assert {label_of(row[0]) for row in shown} == {"plain"}
