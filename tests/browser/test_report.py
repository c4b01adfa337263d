"""The report in a real browser: no request leaves, no violation of accessibility, fit for a phone."""

from __future__ import annotations

from itertools import product

import pytest
from boards import ROOT
from screens import DESK, PHONE
from site_pages import hostile

from bench import build_report


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report on an audited board, and on one of hostile names."""
    folder = tmp_path_factory.mktemp("reports")
    made = {"audit": ROOT / "results/digits-audit", "hostile": hostile(folder / "hostile")}
    return {name: build_report(results).save(folder / f"{name}.html") for name, results in made.items()}


@pytest.mark.parametrize(
    ("name", "dark", "size"), [*product(["audit"], (False, True), (DESK, PHONE)), ("hostile", False, PHONE)]
)
def test_nothing_violates_accessibility_and_a_phone_scrolls_tables_alone(name, dark, size, pages, open_page):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(pages[name], dark=dark, size=size)
    assert page.evaluate("document.scrollingElement.scrollWidth") == size["width"]
    widths = page.eval_on_selector_all("tr > :first-child", "cells => cells.map(c => c.getBoundingClientRect().width)")
    assert size == DESK or max(widths) <= 0.5 * PHONE["width"]
    found = Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []


def test_contents_lead_to_sections_and_pictures_are_drawn(pages, open_page):
    page = open_page(pages["audit"])
    page.locator("nav a", has_text="Deviations").click()
    assert abs(page.locator("#deviations").bounding_box()["y"]) < 100
    assert page.eval_on_selector_all("img", "found => found.every(i => i.complete && i.naturalWidth > 0)")
    folded = page.locator("details").first
    folded.locator("summary").click()
    assert folded.locator("pre, table").first.is_visible()
