"""Every fault of the catalogue, and the page that lists them."""

import pytest

from faults import groups
from faults.catalogue import CASES, PAGE, page
from faults.ground import Ground, Outcome, make_base, settle

groups.load()
_SLOW = {
    *("killed-at-10-moments", "killed-at-disk-calls", "killed-with-workers", "killed-one-of-two", "downloads-killed"),
    *("disk-full-from-each-write", "interrupted-once", "interrupted-terminated", "models-leaks"),
}


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    made = make_base(tmp_path_factory.mktemp("faults"))
    yield made
    made.driver.close()


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in _SLOW else ()) for n in CASES])
def test_fault(name, base, tmp_path, monkeypatch):
    came = CASES[name].bring(Ground(base, tmp_path, monkeypatch))
    for outcome in [came] if isinstance(came, Outcome) else came:
        settle(base, outcome)


def test_the_catalogue_is_complete_and_current():
    assert len(CASES) >= 40
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: cd tests && python -m faults.write"


def test_the_page_does_not_depend_on_the_order_of_import(monkeypatch):
    expected = page()
    monkeypatch.setattr("faults.catalogue.CASES", dict(sorted(CASES.items(), key=lambda c: c[1].group, reverse=True)))
    assert page() == expected
