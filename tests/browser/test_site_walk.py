"""The way of a stranger with a phone and no network: three taps from the index to what a row is worth."""

from __future__ import annotations

import re

import pytest
from screens import PHONE
from site_pages import COMMITTED

from bench import leaderboard, load_results


@pytest.fixture(scope="module")
def adp():
    frame = leaderboard(*COMMITTED)
    return frame[(frame["board"] == "digits-audit") & (frame["defense"] == "adp")].iloc[0]


def visible(page):
    return page.locator("main").inner_text()


def test_three_taps_lead_to_rank_claim_audit_command_and_images(site, adp, open_page):
    page = open_page(site / "index.html", size=PHONE, has_touch=True, offline=True)
    page.locator("main a[href='b/digits-audit/index.html']").first.tap()
    page.locator("#board tbody th a[href='adp.html']").tap()
    page.wait_for_url("**/adp.html")
    text = visible(page)
    low, high = int(adp["rank_low"]), int(adp["rank_high"])
    assert (f"Rank {low} of" if low == high else f"Rank {low} to {high} of") in text
    assert f"{100 * adp['worst_mean']:.1f} %" in text
    for anchor, words in (("claims", adp["claim_verdict"]), ("audit", "pass"), ("reproduce", "purebench run")):
        heading = page.locator(f"h2#{anchor}")
        assert heading.is_visible()
        section = heading.evaluate("h => { let t = ''; for (let e = h.nextElementSibling; e && e.tagName !== 'H2';"
                                   " e = e.nextElementSibling) t += e.textContent; return t; }")  # fmt: skip
        assert words in section.lower(), anchor
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator("a[href^='adp-images.html']").first.tap()
    page.wait_for_url("**/adp-images.html*")
    records = load_results(COMMITTED[0])
    mine = records[
        (records["defense"] == "adp") & ~records["attack"].isin(["none", "uniform"]) & ~records["seed_known"]
    ]
    broken = mine[(mine["accuracy"] < 0.5) & (mine["clean"] > 0.5)]["image"].nunique()
    assert re.search(rf"\b{broken}\b", visible(page))
    shown = page.locator("main figure image").first
    shown.scroll_into_view_if_needed()
    assert shown.is_visible()
    assert shown.evaluate("i => i.decode().then(() => true)")
