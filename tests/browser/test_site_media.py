"""The site on paper, in forced colours and on the narrowest screens."""

from __future__ import annotations

import pytest

PAGES = (
    "index.html",
    "b/digits-audit/index.html",
    "b/digits-audit/adp.html",
    "b/digits-audit/adp-images.html",
    "b/digits-audit/attacks.html",
    "b/mixed/index.html",
    "claims.html",
    "audits.html",
    "method.html",
    "reproduce.html",
)
A4 = {"width": 1050, "height": 740}  # landscape, without margins, in CSS pixels
NARROW = {"width": 320, "height": 640}
COLOURS = """selector => [...document.querySelectorAll(selector)].map(shape => {
  const style = getComputedStyle(shape);
  return [style.fill, style.stroke];
})"""


def visible_columns(page):
    return page.eval_on_selector_all(
        "#board thead th", "cells => cells.filter(c => c.getClientRects().length).map(c => c.dataset.k)"
    )


def test_a_print_of_the_leaderboard_has_the_columns_of_the_screen(site, open_page):
    page = open_page(site / "b/digits-audit/index.html", size=A4)
    seen = visible_columns(page)
    page.emulate_media(media="print")
    assert visible_columns(page) == seen
    assert len(seen) > 4
    outside = "cells => cells.filter(c => c.getBoundingClientRect().right > innerWidth + 1).length"
    assert page.eval_on_selector_all("#board th, #board td", outside) == 0


def test_a_print_repeats_the_head_and_keeps_rows_whole(site, open_page):
    page = open_page(site / "b/digits-audit/index.html", size=A4)
    page.emulate_media(media="print")
    style = "(e, name) => getComputedStyle(e)[name]"
    assert page.locator("#board thead").evaluate(style, "display") == "table-header-group"
    assert page.locator("#board tbody tr").first.evaluate(style, "breakInside") == "avoid"
    assert page.locator("#board thead th").first.evaluate(style, "position") == "static"
    assert page.locator(".frame").first.evaluate(style, "overflow") == "visible"
    assert page.locator("header").is_hidden()


def test_bars_keep_an_outline_and_a_mark_in_forced_colours(site, open_page):
    page = open_page(site / "b/digits-audit/index.html", forced_colors="active")
    boxes, marks = page.evaluate(COLOURS, ".bar .b"), page.evaluate(COLOURS, ".bar .m")
    assert len(boxes) == len(marks) > 2
    for (inside, outline), (mark, _) in zip(boxes, marks, strict=True):
        assert outline not in (inside, "none")
        assert mark != inside


@pytest.mark.parametrize("dark", [False, True])
def test_signs_of_the_audit_are_words_and_not_colours_alone(dark, site, open_page):
    page = open_page(site / "audits.html", forced_colors="active", dark=dark)
    seen = "cells => cells.filter(c => c.getClientRects().length).map(c => c.innerText.trim())"
    texts = page.eval_on_selector_all("table.checks tbody td", seen)
    assert len(texts) > 100
    assert all(texts)


def test_nothing_moves(site, open_page):
    """Readers who ask for reduced motion are given what all are: no page has an animation or a transition."""
    for file in PAGES:
        page = open_page(site / file)
        moving = page.eval_on_selector_all(
            "*",
            "all => all.filter(e => { const s = getComputedStyle(e); return s.animationName !== 'none' ||"
            " parseFloat(s.transitionDuration) > 0 || s.scrollBehavior === 'smooth'; }).length",
        )
        assert moving == 0, file
        page.context.close()


@pytest.mark.parametrize("file", PAGES)
def test_the_narrowest_screen_scrolls_no_page_sideways(file, site, open_page):
    """320 pixels are a desktop's 1280 at four times the size (WCAG 1.4.10); tables scroll in their frames."""
    page = open_page(site / file, size=NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    cut = page.eval_on_selector_all(
        "main p, main h1, main h2, .facts dd, nav a",
        "all => all.filter(e => e.getClientRects().length && !e.closest('.frame') &&"
        " e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))",
    )
    assert cut == []


WORDS = """() => [...document.querySelectorAll('thead th')].filter(e => e.getClientRects().length).flatMap(head => {
  const room = parseFloat(getComputedStyle(head).maxWidth) || Infinity, broken = [], texts = [];
  const walker = document.createTreeWalker(head, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) texts.push(walker.currentNode);
  for (const text of texts) for (const word of text.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
    const range = document.createRange();
    range.setStart(text, word.index);
    range.setEnd(text, word.index + word[0].length);
    const boxes = [...range.getClientRects()];
    const wide = boxes.reduce((sum, box) => sum + box.width, 0);
    if (new Set(boxes.map(box => Math.round(box.top))).size > 1 && wide < room - 16) broken.push(word[0]);
  }
  return broken;
})"""


@pytest.mark.parametrize("file", [*PAGES, "b/digits-audit/compare.html"])
def test_heads_on_a_phone_break_between_words(file, site, open_page):
    page = open_page(site / file, size={"width": 360, "height": 640}, fragment="#cols=core,clean,draws,claim,attacks")
    assert page.evaluate(WORDS) == []
