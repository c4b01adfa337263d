"""Pages of pairs and claims in a real browser: a pair is that of `bench.pairs`, filters are those of the frames."""

from __future__ import annotations

import re

import pytest
from screens import PHONE
from site_pages import COMMITTED

from bench import claims_table, load_results, pairs
from bench.analysis.worst_case import worst_per_image

PAGE = "b/digits-audit/compare.html"
SEEN = "() => document.querySelectorAll('table.filtered tbody tr:not([hidden])').length"


def test_a_pair_that_is_chosen_is_that_of_pairs(site, open_page):
    frame = pairs(COMMITTED[0])
    row = frame[(frame["a"] == "pgd-at") & (frame["b"] == "adp")].iloc[0]
    page = open_page(site / PAGE)
    assert page.evaluate(SEEN) == len(frame)
    page.locator("select[name=a]").select_option("adp")
    assert page.evaluate(SEEN) == 5
    assert page.locator(".differ").is_hidden()
    page.locator("select[name=b]").select_option("pgd-at")
    assert page.locator("[role=status]").text_content() == f"1 of {len(frame)} pairs"
    shown = page.locator("tbody tr:not([hidden])")
    difference = float(shown.locator("td").nth(2).get_attribute("data-v"))
    assert difference == pytest.approx(row["difference"])
    parts = page.locator(".differ p").all_text_contents()
    found = {re.match("Only (.*) is right on", p)[1]: [int(i) for i in p.partition(": ")[2].split()] for p in parts}
    worst, whole = worst_per_image(COMMITTED[0]), load_results(COMMITTED[0])
    worst = worst.merge(whole[["defense", "attack", "view", "image", "majority"]])
    right = {label: set(rows[rows["majority"] == 1]["image"]) for label, rows in worst.groupby("defense")}
    assert found == {
        "pgd-at": sorted(right["pgd-at"] - right["adp"]),
        "adp": sorted(right["adp"] - right["pgd-at"]),
    }
    assert [len(found["pgd-at"]), len(found["adp"])] == [row["only_a"], row["only_b"]]
    assert page.url.endswith("#a=adp&b=pgd-at")
    assert open_page(site / PAGE, fragment="#a=adp&b=pgd-at").locator(".differ a").count() == sum(
        map(len, found.values())
    )
    page.locator(".differ a").first.click()
    image = page.evaluate("location.hash")
    assert page.locator(image).is_visible()
    assert int(image[2:]) == found["pgd-at"][0]


def test_a_defense_and_itself_are_no_pair(site, open_page):
    page = open_page(site / PAGE, fragment="#a=adp&b=nobody")
    assert page.evaluate(SEEN) == 5
    page.locator("select[name=b]").select_option("adp")
    page.locator("select[name=a]").select_option("")
    assert page.evaluate(SEEN) == 5
    page.locator("button[type=reset]").click()
    page.wait_for_function("() => !location.hash")
    assert page.evaluate(SEEN) == 15


def test_claims_are_filtered_as_the_frame(site, open_page):
    table = claims_table(COMMITTED)
    page = open_page(site / "claims.html")
    assert page.evaluate(SEEN) == len(table)
    page.locator("select[name=by]").select_option("claim")
    assert page.evaluate(SEEN) == (table["kind"] == "claim").sum()
    page.locator("select[name=verdict]").select_option("not-comparable")
    page.locator("select[name=board]").select_option("digits-audit")
    mine = (table["kind"] == "claim") & (table["verdict"] == "not comparable") & (table["results"] == str(COMMITTED[0]))
    assert page.locator("[role=status]").text_content() == f"{mine.sum()} of {len(table)} claims"
    assert "verdict=not-comparable&by=claim&board=digits-audit" in page.url


@pytest.mark.parametrize("file", [PAGE, "claims.html", "audits.html", "b/digits-audit/attacks.html"])
def test_a_phone_has_targets_that_can_be_met(file, site, open_page):
    page = open_page(site / file, size=PHONE)
    assert page.evaluate("document.scrollingElement.scrollWidth") == PHONE["width"]
    small = page.eval_on_selector_all(
        "button, select, summary, tbody a, nav a, .jump a",
        "items => items.map(i => [i.outerHTML.slice(0, 80), i.getBoundingClientRect()])"
        ".filter(([, r]) => r.width && (r.height < 24 || r.width < 24)).map(([text]) => text)",
    )
    assert small == []


def test_without_scripts_all_pairs_are_there(site, open_page):
    page = open_page(site / PAGE, java_script_enabled=False)
    assert page.locator("#pairs tbody tr").count() == 15
    assert page.locator(".controls").is_hidden()
    assert page.locator(".differ").is_hidden()
    assert page.locator("button:visible").count() == 0
