"""The page of claims: all rows of `bench.claims_table`, each with both numbers, its verdict and its board."""

import json
import re
from collections import Counter

import pandas as pd
import pytest
from boards import ROOT, purebench_here
from fake_board import deterministic, line, result, write
from site_pages import COMMITTED, WONG, Page, model_info

from bench import claims_table
from bench.analysis.claim_files import read_claims
from bench.report.model_info import read_model_info
from bench.site.build import build_site, check_site
from bench.site.claims_page import claims_page
from bench.site.collect import collect
from bench.site.plots import Plots
from bench.stats.proportions import wilson


@pytest.fixture(scope="module")
def source(site):
    return (site / "claims.html").read_text()


def lines(source):
    for text in re.findall(r"<tr data-verdict.*?</tr>", source, re.DOTALL):
        page = Page(text)
        links = [a["href"] for _, a, _ in page.all("a")]
        share = re.search(r'<td data-v="([^"]+)"', text)
        cells = [t for tag, _, t in page.elements if tag == "td"]
        yield page.all("th")[0][2], page.all("tr")[0][1], cells, float(share[1]) if share else None, links


def told(share):
    return None if pd.isna(share) else share


def test_every_claim_stands_with_both_numbers(source):
    table = claims_table(COMMITTED)
    found = list(lines(source))
    assert len(found) == len(table)
    expected = Counter(
        (r.defense, f"{r.dataset} {r.threat}".strip(), r.network, told(r.claimed_robust),
         f"{100 * r.measured_robust:.1f} [{100 * r.measured_low:.1f}, {100 * r.measured_high:.1f}]", r.reason,
         "protocol not run")
        for r in table.itertuples()
    )  # fmt: skip
    assert expected == Counter(
        (name, cells[1], cells[10], share, cells[3], cells[6].partition("; another model")[0], cells[5])
        for name, _, cells, share, _ in found
    )
    assert all(cells[4] == "not comparable" for _, _, cells, _, _ in found)


def test_claims_lead_to_their_rows_and_are_told_apart(source):
    kinds = Counter(attributes["data-by"] for _, attributes, *_ in lines(source))
    assert kinds == Counter(claims_table(COMMITTED)["kind"])
    for name, attributes, cells, _, links in lines(source):
        assert links[0].startswith(f"b/{attributes['data-board']}/")
        assert links[0].endswith(".html#claims")
        assert ("re-evaluation" in cells[0]) == (attributes["data-by"] == "re-evaluation")
        assert name


def test_claims_that_can_be_compared_come_first():
    claims = read_claims()
    site = collect([ROOT / "results/digits-gan"], "t", claims, gallery=0)
    found = [claim for board in site.boards for row in board.rows for claim in row.claims]
    found[5]["verdict"], found[9]["verdict"] = "consistent", "refuted"
    words = [cells[4] for _, _, cells, *_ in lines(claims_page(site, Plots()))]
    assert words[:3] == ["✗ refuted", "✓ consistent", "not comparable"]
    assert "1 refuted, 1 consistent" in claims_page(site, Plots())


def test_claims_whose_protocol_ran_come_next():
    site = collect([ROOT / "results/digits-gan", ROOT / "results/reproduction-digits"], "t", read_claims(), gallery=0)
    ran = [cells[5] != "protocol not run" for _, _, cells, *_ in lines(claims_page(site, Plots()))]
    assert 0 < sum(ran) < len(ran)
    assert ran == sorted(ran, reverse=True)


def test_the_picture_has_no_claim_that_cannot_be_compared(source):
    assert "all-claims" not in source
    site = collect([ROOT / "results/digits-gan"], "t", read_claims(), gallery=0, compared=False)
    claimed = site.frames["claims"]
    site.frames["claims"] = claimed.assign(verdict=["consistent", *claimed["verdict"].iloc[1:]])
    text = claims_page(site, Plots())
    words = f"1 consistent. Left out: {len(claimed) - 1} that cannot be compared."
    assert f"<figcaption>Published against measured robust accuracy: {words}</figcaption>" in text


def test_a_claim_is_held_against_each_threat_by_itself(tmp_path):
    rows = [*deterministic("pgd-at"), *deterministic("pgd-at", eps="3/10")]
    rows[6] = result(line("pgd-at", "apgd", eps="3/10"), [0] * 6)
    folder = write(tmp_path / "radii", rows)
    build_site([folder], tmp_path / "site")
    table = claims_table(folder)
    found = list(lines((tmp_path / "site/claims.html").read_text()))
    assert len(found) == len(table) > 0
    measured = {attributes["data-board"]: cells[3].split()[0] for _, attributes, cells, *_ in found}
    assert measured == {"radii-linf-1-5": "33.3", "radii-linf-3-10": "0.0"}
    for slug in measured:
        source = (tmp_path / f"site/b/{slug}/pgd-at.html").read_text().partition('<h2 id="claims">')[2]
        assert source.partition("</table>")[0].count("<tr>") == 1 + len(table) / 2


def test_without_claims_the_page_says_so(tmp_path):
    build_site([write(tmp_path / "one", deterministic())], tmp_path / "site")
    assert "No published accuracy of these defenses is known here." in (tmp_path / "site/claims.html").read_text()


def test_further_claims_stand_beside_those_of_purebench(tmp_path):
    folder, site = write(tmp_path / "one", deterministic("mine")), tmp_path / "site"
    text = """
paper = "A defense of mine"
kind = "claim"
dataset = "digits"
threat = "Linf 1/5"
attack = "PGD"
source = "table 1"
evidence = "paper"
[[claims]]
defense = "mine"
clean = "0.9"
robust = "0.8"
"""
    (file := tmp_path / "mine.toml").write_text(text)
    build_site(str(folder), str(site))
    assert "A defense of mine" not in (site / "claims.html").read_text()
    build_site(folder, site, claims=file)
    assert "A defense of mine" in (site / "claims.html").read_text()
    assert check_site(folder, site, claims=[file]) == []
    file.write_text(text.replace("0.8", "0.7"))
    assert any("claims.html" in difference for difference in check_site(folder, site, claims=[file]))


def test_entries_of_robustbench_stand_beside_their_best_known_number(tmp_path):
    results, site = write(tmp_path / "one", deterministic("mine")), tmp_path / "site"
    model_info(tmp_path / "a")
    build_site(results, site, claims=tmp_path / "a/model_info")
    source = (site / "claims.html").read_text()
    assert "No published accuracy of these defenses is known here." in source, "they are no claims on the defenses"
    rows = re.findall(r"<tr><th.*?</tr>", source.partition('id="robustbench"')[2], re.DOTALL)
    heads = [text for tag, _, text in Page(rows[0]).elements if tag == "th"]
    cells = [
        (page.all("th")[0][2], *(text for tag, _, text in page.elements if tag == "td")) for page in map(Page, rows)
    ]
    assert [row[0] for row in cells[1:]] == ["Other", "Wong2020Fast", "Silent"]
    assert cells[2][:5] == ("Wong2020Fast", "cifar10 Linf 8/255", "46.06", "43.21 [42.24, 44.18]", "✗ refuted")
    assert cells[1][3:5] == ("43.21 [42.24, 44.18]", "✗ refuted"), "the lowest of what is known"
    assert cells[3][3:5] == ("not known", "not comparable")
    assert cells[2][-1] == "cifar10/Linf/Wong2020Fast.json"
    shown = {row[0]: dict(zip(heads, row, strict=True)) for row in cells[1:]}
    entries = {name: read_model_info(tmp_path / f"a/model_info/cifar10/Linf/{name}.json") for name in shown}
    for name, info in entries.items():
        for head, key in (("clean % [95 %]", "clean_acc"), ("AutoAttack % [95 %]", "autoattack_acc")):
            share = info.share(key)
            ends = (0, 0) if share is None else wilson(share * 10_000, 10_000)
            text = (
                "not known" if share is None else "{:.2f} [{:.2f}, {:.2f}]".format(*(100 * x for x in (share, *ends)))
            )
            assert shown[name][head] == text
    assert [shown[name]["rank"] for name in ("Wong2020Fast", "Other", "Silent")] == ["1–2", "1–2", "none"]
    assert "<script>alert" not in source
    frame = pd.read_csv(site / "data/reported.csv").set_index("defense")
    assert frame.loc["Wong2020Fast", ["claimed_robust", "measured_robust"]].tolist() == [0.4606, 0.4321]
    assert frame.loc["Other", ["autoattack_robust", "rank_low", "rank_high"]].tolist() == [0.4321, 1, 2]
    assert "data/reported.csv" in (site / "index.html").read_text()
    assert check_site(results, site, claims=tmp_path / "a/model_info") == []
    elsewhere = (tmp_path / "a").rename(tmp_path / "b")
    assert check_site(results, site, claims=elsewhere / "model_info") == [], "where the folder lies says nothing"
    (elsewhere / "model_info/cifar10/Linf/Other.json").unlink()
    assert any("claims.html" in told for told in check_site(results, site, claims=elsewhere / "model_info"))


def test_entries_are_ranked_among_those_of_their_data_and_threat(tmp_path):
    best = {"A": 50.0, "B": 49.5, "C": 48.0, "D": 30.0}
    folder = model_info(tmp_path, {name: {"autoattack_acc": str(share)} for name, share in best.items()})
    (other := folder / "cifar10/L2").mkdir()
    (other / "E.json").write_text(json.dumps(WONG | {"autoattack_acc": "1"}))
    build_site(write(tmp_path / "one", deterministic("mine")), tmp_path / "site", claims=folder)
    frame = pd.read_csv(tmp_path / "site/data/reported.csv").set_index("defense")
    ends = {name: wilson(share * 100, 10_000) for name, share in best.items()}
    for name, (low, high) in ends.items():
        above = sum(other[0] > high for other in ends.values())
        below = sum(other[1] < low for other in ends.values())
        assert frame.loc[name, ["rank_low", "rank_high"]].tolist() == [1 + above, 4 - below]
    assert frame.loc[["A", "D", "E"], "rank_low"].tolist() == [1, 4, 1]
    assert frame.loc["A", "rank_high"] == 2


def test_a_bad_entry_of_robustbench_is_one_line_and_writes_nothing(tmp_path):
    results, file = write(tmp_path / "one", deterministic()), tmp_path / "Linf/X.json"
    file.parent.mkdir()
    file.write_text(json.dumps(WONG | {"reported": "much"}))
    done = purebench_here("site", results, "--claims", tmp_path / "Linf", "--out", tmp_path / "s")
    assert (done.returncode, done.stderr.count("\n"), (tmp_path / "s").exists()) == (2, 1, False)
    assert "X.json: reported" in done.stderr


@pytest.mark.parametrize(("text", "words"), [(None, "cannot read"), ("claims = ", "is not a TOML file")])
def test_bad_claims_are_one_line_and_write_nothing(text, words, tmp_path):
    folder, file = write(tmp_path / "one", deterministic()), tmp_path / "mine.toml"
    if text is not None:
        file.write_text(text)
    done = purebench_here("site", folder, "--claims", file, "--out", tmp_path / "s")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words in done.stderr
    assert not (tmp_path / "s").exists()
