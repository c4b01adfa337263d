"""Pages of images in a real browser: filters, anchors, pictures, a phone."""

from __future__ import annotations

from itertools import product

import pandas as pd
import pytest
from screens import DESK, PHONE
from site_pages import COMMITTED

from bench import load_results
from bench.site.build import GALLERY
from bench.site.sheets import ACROSS

PAGE = "b/digits-audit/adp-images.html"
SEEN = "() => [...document.querySelectorAll('#images tbody tr:not([hidden]) th')].map(c => Number(c.textContent))"


@pytest.fixture(scope="module")
def frame():
    """A row per image of adp: broken by any, and by a blind attack; clean; class."""
    frame = load_results(COMMITTED[0])
    mine = frame[(frame["defense"] == "adp") & ~frame["attack"].isin(["none", "uniform"])]
    mine = mine.assign(broken=(mine["accuracy"] < 0.5) & (mine["clean"] > 0.5))
    by = mine.groupby("image")
    blind = mine[mine["gradient"] == "blind"].groupby("image")["broken"].any()
    return pd.DataFrame(
        {"broken": by["broken"].any(), "blind": blind, "clean": by["clean"].first(), "label": by["label"].first()}
    )


def test_filters_show_the_images_of_the_records(site, frame, open_page):
    page = open_page(site / PAGE)
    expected = {
        "": frame["label"] >= 0,
        "broken": frame["broken"],
        "only": frame["broken"] & ~frame["blind"],
        "none": ~frame["broken"] & (frame["clean"] > 0.5),
        "wrong": frame["clean"] <= 0.5,
    }
    options = page.eval_on_selector_all("select[name=state] option", "found => found.map(o => o.value)")
    assert options == [name for name, rows in expected.items() if rows.any()]
    for name in options:
        page.locator("select[name=state]").select_option(name)
        rows = frame.index[expected[name]].tolist()
        assert page.evaluate(SEEN) == rows
        assert page.locator("[role=status]").text_content() == f"{len(rows)} of {len(frame)} images"
    page.locator("select[name=state]").select_option("broken")
    page.locator("select[name=label]").select_option("3")
    assert page.evaluate(SEEN) == frame.index[frame["broken"] & (frame["label"] == 3)].tolist()
    assert page.url.endswith("#state=broken&label=3")
    other = open_page(site / PAGE, fragment="#state=broken&label=3")
    assert other.evaluate(SEEN) == page.evaluate(SEEN)
    page.locator("button[type=reset]").click()
    page.wait_for_function("() => !location.hash")
    assert len(page.evaluate(SEEN)) == len(frame)


def test_no_image_is_said_and_shown_again(site, frame, open_page):
    counts = frame[~frame["broken"] & (frame["clean"] > 0.5)]["label"].value_counts()
    gone = next(label for label in range(10) if label not in counts.index)
    page = open_page(site / PAGE, fragment=f"#state=none&label={gone}")
    assert page.locator("[role=status]").text_content() == f"no of {len(frame)} images"
    page.locator(".none button").click()
    page.wait_for_function("() => document.querySelector('.none').hidden")
    assert len(page.evaluate(SEEN)) == len(frame)


@pytest.mark.parametrize("broken", ["#state=zebra&label=99", "#i99999", "#=", "#%E0%A4%A"])
def test_a_broken_address_shows_all_images(broken, site, frame, open_page):
    assert len(open_page(site / PAGE, fragment=broken).evaluate(SEEN)) == len(frame)


@pytest.mark.parametrize(("name", "size"), list(product(("#i17", "#i170"), (DESK, PHONE))))
def test_an_anchor_leads_to_its_image(name, size, site, open_page):
    page = open_page(site / PAGE, fragment=name, size=size)
    page.wait_for_load_state()
    box, frame = page.locator(name).bounding_box(), page.locator(".frame").bounding_box()
    head = page.locator("#images thead").bounding_box()
    assert head["y"] + head["height"] <= box["y"] <= frame["y"] + frame["height"]  # not below the head that stays
    assert 0 <= box["y"] <= size["height"]


def test_an_anchor_shows_an_image_that_a_filter_hides(site, open_page):
    page = open_page(site / PAGE)
    page.locator("select[name=state]").select_option("none")
    page.locator("figcaption a").first.click()  # a broken one, which the filter hides
    name = page.evaluate("location.hash")
    assert page.locator(name).is_visible()
    assert page.locator(name).bounding_box()["y"] <= DESK["height"]


def test_pictures_are_loaded_and_as_large_as_they_should_be(site, open_page):
    page = open_page(site / PAGE)
    found = page.eval_on_selector_all(
        "details[open] figure svg", "items => items.map(i => [i.clientWidth, i.clientHeight])"
    )
    assert len(found) == GALLERY
    assert {tuple(size) for size in found} == {(3 * 64 + 2 * 8, 64)}  # three panels, and gaps of a pixel
    shown = page.evaluate(
        """async () => {
          const address = document.querySelector('figure image').href.baseVal, picture = new Image();
          picture.src = address;
          await picture.decode();
          return [picture.naturalWidth, picture.naturalHeight];
        }"""
    )
    assert shown == [(8 * 3 + 2) * ACROSS, 8 * -(-GALLERY // ACROSS)]


def test_without_scripts_all_images_are_there(site, frame, open_page):
    page = open_page(site / PAGE, java_script_enabled=False)
    assert page.locator("#images tbody tr").count() == len(frame)
    assert page.locator(".controls").is_hidden()
    assert page.locator("button:visible").count() == 0


@pytest.mark.parametrize(("dark", "size"), list(product((False, True), (DESK, PHONE))))
def test_nothing_violates_accessibility(dark, size, site, open_page):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(site / PAGE, dark=dark, size=size)
    page.set_default_timeout(60_000)
    found = Axe().run(page, options={"preload": False}).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []


def test_a_phone_does_not_scroll_sideways(site, open_page):
    page = open_page(site / PAGE, size=PHONE)
    for file in (PAGE, "b/digits-audit/adp.html", *(f"b/hostile/{f.name}" for f in (site / "b/hostile").iterdir())):
        page.goto((site / file).as_uri())
        for width in (PHONE["width"], 320):
            page.set_viewport_size({"width": width, "height": 640})
            assert page.evaluate("document.scrollingElement.scrollWidth") == width, file
