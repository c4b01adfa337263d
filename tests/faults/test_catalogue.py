"""Every fault of the catalogue, and the page that lists them."""

from functools import partial
from importlib.util import find_spec

import pytest

from faults import groups
from faults.catalogue import CASES, PAGE, page
from faults.ground import Ground, Outcome, make_base, settle

groups.load()
_SLOW = {
    *("killed-at-10-moments", "killed-at-disk-calls", "killed-with-workers", "killed-one-of-two", "downloads-killed"),
    *("disk-full-from-each-write", "interrupted-once", "interrupted-terminated", "models-leaks"),
    *("ray-command", "ray-terminated", "ray-worker-and-node", "ray-large-data", "ray-overwritten", "ray-late-node"),
    *("ray-other-code", "ray-limits", "ray-shared-gpu"),
}
_NO_RAY = pytest.mark.skipif(find_spec("ray") is None, reason='needs Ray: pip install "purebench[ray]"')


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    made = make_base(tmp_path_factory.mktemp("faults"))
    yield made
    made.driver.close()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    from faults.nodes import Nodes

    made = Nodes(tmp_path_factory.mktemp("nodes"))
    yield made
    made.close()


def _marks(name):
    return [*([pytest.mark.slow] if name in _SLOW else []), *([_NO_RAY] if CASES[name].group == "ray" else [])]


@pytest.mark.parametrize("name", [pytest.param(name, marks=_marks(name)) for name in CASES])
def test_fault(name, base, tmp_path, monkeypatch, request):
    came = CASES[name].bring(Ground(base, tmp_path, monkeypatch, partial(request.getfixturevalue, "nodes")))
    for outcome in [came] if isinstance(came, Outcome) else came:
        settle(base, outcome)


def test_the_catalogue_is_complete_and_current():
    assert len(CASES) >= 40
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: cd tests && python -m faults.write"


def test_the_page_does_not_depend_on_the_order_of_import(monkeypatch):
    expected = page()
    monkeypatch.setattr("faults.catalogue.CASES", dict(sorted(CASES.items(), key=lambda c: c[1].group, reverse=True)))
    assert page() == expected
