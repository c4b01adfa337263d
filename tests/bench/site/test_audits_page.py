"""Pages of audits and certificates: outcomes, numbers and images as the frames have them."""

import re
import shutil

import pytest
from boards import ROOT
from fake_board import deterministic, write
from site_pages import COMMITTED, Page, board_rows, pages

from bench import load_audits, load_certificates
from bench.site.build import build_site
from bench.store.audits import read_audits, write_audits

SHORT = {"✓ pass": "pass", "✗ fail": "fail", "? not measurable": "not measurable", "not applicable": "not applicable"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    build_site([*COMMITTED, ROOT / "results/digits-linf"], out / "site", gallery=0)
    return out / "site"


@pytest.fixture(scope="module")
def frame():
    return load_audits(COMMITTED[0])


def cells(source):
    heads, *lines = re.findall(r"<tr.*?</tr>", source.partition('<table class="checks">')[2], re.DOTALL)
    names = [text for tag, _, text in Page(heads).elements if tag == "th"][2:]
    for text in lines:
        page = Page(text)
        values = [t for tag, _, t in page.elements if tag == "td"]
        yield page.all("a")[0][1]["href"], values[0], dict(zip(names, values[1:], strict=True))


def test_the_matrix_has_the_outcome_of_every_check(site, frame):
    found = list(cells((site / "audits.html").read_text()))
    assert [href for href, _, _ in found] == [f"a/{name}.html" for name in frame["fingerprint"].unique()]
    for href, whole, outcomes in found:
        mine = frame[frame["fingerprint"] == href[2:-5]].set_index("check")
        assert {name: SHORT[text] for name, text in outcomes.items()} == mine["status"].to_dict()
        assert whole == {"pass": "✓ passes", "fail": "✗ fails"}[mine["audit"].iloc[0]]


def test_audits_of_an_earlier_version_say_so(tmp_path):
    folder = shutil.copytree(COMMITTED[0], tmp_path / "digits-audit", ignore=shutil.ignore_patterns("parts"))
    shutil.copytree(COMMITTED[0] / "parts", folder / "parts")
    audits = [{key: value for key, value in audit.items() if key != "version"} for audit in read_audits(folder)]
    write_audits(folder, audits)
    build_site([folder], tmp_path / "site", gallery=0)
    outcomes = [whole for _, whole, _ in cells((tmp_path / "site/audits.html").read_text())]
    assert {*outcomes} == {"✓ passes (earlier version)", "✗ fails (earlier version)"}
    of_adp = load_audits(folder).query("defense == 'adp'")["fingerprint"].iloc[0]
    assert "✓ passes (earlier version)" in (tmp_path / f"site/a/{of_adp}.html").read_text()
    rows = dict(board_rows(Page((tmp_path / "site/b/digits-audit/index.html").read_text())))
    assert rows["adp"]["audit"]["text"] == "✓ passes 17 of 17 (earlier version)"


def test_each_check_has_its_evidence_numbers_and_images(site, frame):
    checked = 0
    for name, mine in frame.groupby("fingerprint"):
        source = (site / f"a/{name}.html").read_text()
        table = source.partition('<table class="evidence">')[2].partition("</table>")[0]
        lines = {}
        for text in re.findall(r'<tr id="c-.*?</tr>', table, re.DOTALL):
            page = Page(text)
            values = {dt[2]: dd for dt, dd in zip(page.all("dt"), page.all("dd"), strict=True)}
            lines[page.all("th")[0][2]] = ([t for tag, _, t in page.elements if tag == "td"], values, text)
        assert lines.keys() == {*mine["check"]}
        failed = [check for check in lines if mine.set_index("check").loc[check, "status"] == "fail"]
        assert list(lines)[: len(failed)] == failed  # first
        for row in mine.itertuples():
            texts, values, html = lines[row.check]
            assert texts[1] == row.evidence
            assert values.keys() == row.numbers.keys()
            for key, value in row.numbers.items():
                assert float(values[key][1]["data-v"]) == value if value is not None else values[key][2] == "not finite"
                checked += 1
            listed = [int(i) for i in re.findall(r'images\.html#i(\d+)">\1</a>', html)]
            assert listed == list(row.images[:12])
            assert (f"and {len(row.images) - 12} more" in texts[3]) == (len(row.images) > 12)
    assert checked > 200


def test_certificates_have_their_worst_values_and_limits(site, frame):
    certificates = load_certificates(COMMITTED[0])
    shown = 0
    for name in frame["fingerprint"].unique():
        source = (site / f"a/{name}.html").read_text().partition('<h2 id="certificate">')[2]
        mine = certificates[certificates["fingerprint"] == name]
        names = re.findall(r'<th scope="row" class="t">([^<]+)</th>', source)
        assert names == mine["check"].tolist()
        for row in mine.itertuples():
            limit = f"{row.limit:g}" if 0.99 < row.limit < 1 else f"{row.limit:.3g}"  # a cosine near 1 keeps its nines
            assert f"at {'least' if row.least else 'most'} {limit}" in source
            shown += 1
    assert shown > 10


def test_a_leaderboard_leads_to_the_audit_of_the_same_defense(site, frame):
    rows = dict(board_rows(Page((site / "b/digits-linf/index.html").read_text())))
    assert rows["adp"]["audit"]["text"] == "✓ passes 17 of 17"
    assert "✓ passes 17 of 17" in (site / "b/digits-linf/adp.html").read_text()
    links = [a["href"] for _, a, _ in Page((site / "b/digits-linf/index.html").read_text()).all("a")]
    of_adp = frame[frame["defense"] == "adp"]["fingerprint"].iloc[0]
    assert f"../../a/{of_adp}.html" in links
    assert "(earlier version)" not in (site / f"a/{of_adp}.html").read_text()
    assert f"../../a/{of_adp}.html" in (site / "b/digits-linf/adp.html").read_text()
    back = [a["href"] for _, a, _ in Page((site / f"a/{of_adp}.html").read_text()).all("a")]
    assert {"../b/digits-audit/adp.html", "../b/digits-linf/adp.html"} <= {*back}


def test_audits_alone_have_pages_without_links_to_images(tmp_path):
    folder = tmp_path / "audited"
    shutil.copytree(COMMITTED[0] / "audit", folder / "audit")
    build_site([folder], tmp_path / "site")
    read = pages(tmp_path / "site")
    assert len([path for path in read if path.startswith("a/")]) == 6
    assert not [a for page in read.values() for _, a, _ in page.all("a") if "-images" in a["href"]]


def test_without_audits_the_page_says_so(tmp_path):
    build_site([write(tmp_path / "one", deterministic())], tmp_path / "site")
    assert "None of these folders holds an audit" in (tmp_path / "site/audits.html").read_text()
    assert not (tmp_path / "site/a").exists()
