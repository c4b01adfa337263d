"""A headless Chromium, started once; without one, tests are skipped, but fail where CI runs them."""

from __future__ import annotations

import os
import shutil

import pytest
from filelock import FileLock
from screens import DESK
from site_pages import COMMITTED, hostile, many, mixed, model_info, write_board_pages

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id):
    """Two committed boards, hostile names, incomplete rows, and 200 rows of 30 attacks; built once for all workers."""
    from bench.site.build import build_site

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "pages"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "built").exists():
            boards = [*COMMITTED, hostile(folder / "hostile"), mixed(folder / "mixed")]
            build_site(boards, folder / "site", claims=model_info(folder))
            write_board_pages(many(folder / "many", 200, 30), folder / "site")
            (folder / "built").touch()
    return folder / "site"


@pytest.fixture(scope="session")
def browser():
    """The browser."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        reason = "no chromium; install it, as apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Return a function that opens a file; what the page logs, requests or violates fails the test at its end."""
    contexts, faults = [], []

    def open_page(file, *, size=DESK, dark=False, fragment="", **options):
        scheme = "dark" if dark else "light"
        context = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=False, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda request: request.url.startswith("file:") or faults.append(f"asks {request.url}"))
        page.goto(file.as_uri() + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
