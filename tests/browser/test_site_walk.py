"""The way of a stranger with a phone and no network: three taps from the index to what a row is worth."""

from __future__ import annotations

import re

import pytest
from boards import ROOT
from screens import PHONE

from bench import leaderboard, load_results

# The audits of digits-audit count for the same defenses of digits-linf, by their fingerprints.
BOARDS = {name: ROOT / "results" / name for name in ("digits-linf", "digits-audit")}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The site of both boards."""
    from bench.site.build import build_site

    folder = tmp_path_factory.mktemp("walk") / "site"
    build_site(list(BOARDS.values()), folder)
    return folder


@pytest.fixture(scope="module")
def frame():
    return leaderboard(*BOARDS.values())


def visible(page):
    return page.locator("main").inner_text()


def section(page, anchor):
    """The text below a heading of the second level."""
    heading = page.locator(f"h2#{anchor}")
    assert heading.is_visible()
    return heading.evaluate("h => { let t = ''; for (let e = h.nextElementSibling; e && e.tagName !== 'H2';"
                            " e = e.nextElementSibling) t += e.textContent; return t; }")  # fmt: skip


@pytest.mark.parametrize("board", BOARDS)
def test_three_taps_lead_to_rank_claim_audit_command_and_images(board, both, frame, open_page):
    adp = frame[(frame["board"] == board) & (frame["defense"] == "adp")].iloc[0]
    page = open_page(both / "index.html", size=PHONE, has_touch=True, offline=True)
    page.locator(f"main a[href='b/{board}/index.html']").first.tap()
    page.locator("#board tbody th a[href='adp.html']").tap()
    page.wait_for_url("**/adp.html")
    text = visible(page)
    low, high = int(adp["rank_low"]), int(adp["rank_high"])
    if board == "digits-linf":
        assert (low, high) == (2, 2)
    assert (f"Rank {low} of" if low == high else f"Rank {low} to {high} of") in text
    mean, *ends = (100 * adp[f"worst_{name}"] for name in ("mean", "low", "high"))
    assert f"{mean:.1f} % [{ends[0]:.1f}, {ends[1]:.1f}]" in text
    assert re.search(rf"strongest attack\s+{re.escape(adp['worst_attack'])}", text)
    for anchor, words in (("claims", adp["claim_verdict"]), ("audit", "pass"), ("reproduce", "purebench run")):
        assert words in section(page, anchor).lower(), anchor
    assert adp["claim_verdict"] == "not comparable"
    assert adp["claim_reason"] in section(page, "claims")
    assert adp["audit"] == "pass"
    assert "fails" not in section(page, "audit").removeprefix("Failed checks first.")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator("a[href^='adp-images.html']").first.tap()
    page.wait_for_url("**/adp-images.html*")
    records = load_results(BOARDS[board])
    mine = records[
        (records["defense"] == "adp") & ~records["attack"].isin(["none", "uniform"]) & ~records["seed_known"]
    ]
    broken = mine[(mine["accuracy"] < 0.5) & (mine["clean"] > 0.5)]["image"].nunique()
    assert re.search(rf"\b{broken}\b", visible(page))
    shown = page.locator("main figure image").first
    shown.scroll_into_view_if_needed()
    assert shown.is_visible()
    assert shown.evaluate("i => i.decode().then(() => true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
