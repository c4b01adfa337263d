"""Pages of tables and audits in a real browser: no request leaves, no violation of accessibility, fit for a phone."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from fake_board import HOSTILE, deterministic, line, result, write
from screens import DESK, PHONE

from bench.report.tables import write_tables

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of tables with hostile names, one of many rows, and an audit."""
    from bench.audit.findings import Audit
    from bench.audit.pages import as_html
    from bench.store.audits import read_audits

    folder = tmp_path_factory.mktemp("pages")
    hostile = [*deterministic(), result(line(HOSTILE, HOSTILE), [1] * 6), result(line("x" * 200, "pgd"), [1] * 6)]
    attacks = [result(line(f"defense {i}", f"attack {j}"), [1] * 6) for i in range(30) for j in range(6)]
    for name, rows in (("hostile", hostile), ("many", attacks)):
        write_tables(write(folder / name, rows))
    audits = [Audit.from_dict(content) for content in read_audits(ROOT / "results/digits-audit")]
    (folder / "audit.html").write_text(as_html(audits), encoding="utf-8")
    return {name: folder / name / "tables.html" for name in ("hostile", "many")} | {"audit": folder / "audit.html"}


NAMES = ("hostile", "many", "audit")
LOOKS = [
    *product(["hostile"], (False, True), (DESK, PHONE)),
    ("many", False, DESK),
    *product(["audit"], (False, True), [DESK]),
]


@pytest.mark.parametrize(("name", "dark", "size"), LOOKS)
def test_nothing_violates_accessibility(name, dark, size, pages, open_page):
    from axe_playwright_python.sync_playwright import Axe

    # The page allows no script: axe comes in by the browser, beside its policy.
    page = open_page(pages[name], dark=dark, size=size)
    found = Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_phone_scrolls_tables_and_not_the_page(name, pages, open_page):
    page = open_page(pages[name], size=PHONE)
    assert page.evaluate("document.scrollingElement.scrollWidth") == PHONE["width"]
    widths = page.eval_on_selector_all("tr > :first-child", "cells => cells.map(c => c.getBoundingClientRect().width)")
    assert max(widths) <= 0.5 * PHONE["width"]


def test_heads_and_names_stay_when_a_table_is_scrolled(pages, open_page):
    page = open_page(pages["many"])
    frame = page.locator(".frame").nth(1)
    frame.evaluate("f => f.scrollTo(f.scrollWidth, 400)")
    box = frame.bounding_box()
    head, name = frame.locator("thead th").nth(0).bounding_box(), frame.locator("tbody tr th").nth(60).bounding_box()
    assert abs(head["y"] - box["y"]) <= 2
    assert abs(head["x"] - box["x"]) <= 2
    assert abs(name["x"] - box["x"]) <= 2


def test_every_row_is_named_for_those_who_hear_it(pages, open_page):
    page = open_page(pages["many"])
    rows = page.locator("section").nth(1).locator("tbody tr")
    assert rows.nth(1).locator("th[scope=row]").count() == 3  # defense, attack, view
    assert page.locator("thead th:not([scope=col])").count() == 0
    assert page.locator("a[href='tables.csv']").count() == 1


def test_a_print_has_every_column(pages, open_page):
    page = open_page(pages["many"])
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 1050, "height": 740})  # A4, landscape
    outside = page.eval_on_selector_all(
        "th, td", "cells => cells.filter(c => c.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert outside == 0


def test_plots_of_an_audit_stand_beside_their_checks_and_say_what_they_show(pages, open_page):
    page = open_page(pages["audit"])
    plots = page.locator("tbody tr td svg[aria-label]")
    assert plots.count() == page.locator("svg").count() > 50
    assert page.locator("svg[aria-label*='nothing left when unbounded']").count() > 0
