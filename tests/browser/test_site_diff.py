"""The page on an earlier run in a real browser: quiet, fits a phone, no violation of accessibility."""

from __future__ import annotations

from itertools import product

import pytest
from fake_board import HOSTILE, deterministic, failed, line, recorded, result
from screens import DESK, PHONE

from bench.site.build import build_site


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page with rows, changed keys, environments and warnings."""
    folder = tmp_path_factory.mktemp("site")
    for name, right, more in (("old", [1, 1, 0, 0, 1, 0], []), ("new", [0, 1, 1, 0, 1, 0], ["weak: 3 steps"])):
        rows = [*deterministic(HOSTILE), result(line("b", "none"), [1] * 6), result(line("b", "apgd"), right)]
        rows += [failed(line("b", "square"), "error", "boom")] if more else [result(line("b", "square"), right)]
        plan = [r.line | {"warnings": more} for r in rows]
        recorded(folder / name, rows, plan, run=name)
    build_site([folder / "new"], folder / "site", against=[folder / "old"])
    return folder / "site/b/fake/diff.html"


def test_it_is_quiet_and_fits_a_phone(page_file, open_page):
    page = open_page(page_file)
    assert page.locator("h1").count() == 1
    assert page.locator("#diff tbody tr").count() >= 2
    for size in (PHONE, {"width": 320, "height": 640}):
        page.set_viewport_size(size)
        assert page.evaluate("document.scrollingElement.scrollWidth") == size["width"]


def test_nothing_violates_accessibility(page_file, open_page):
    from axe_playwright_python.sync_playwright import Axe

    for dark, size in product((False, True), (DESK, PHONE)):
        found = Axe().run(open_page(page_file, dark=dark, size=size), options={"preload": False}).response
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []
