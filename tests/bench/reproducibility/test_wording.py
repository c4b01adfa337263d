"""Texts in the tables of a report: digits, one wording for what has no number, files of images."""

import json

import pytest
from fake_board import deterministic, stochastic, write

from bench import build_report
from bench.site.outcomes import measured_texts
from bench.site.recipes import Recipe


def tables(report, section):
    (found,) = [s for s in json.loads(report.json())["sections"] if s["name"] == section]
    return [block for block in found["blocks"] if block["kind"] == "table"]


@pytest.mark.parametrize(
    ("value", "limit", "shown"),
    [
        (0.99999, 0.9999, ("0.99999", "at least 0.9999")),
        (1.0, 0.999, ("1", "at least 0.999")),
        (0.5, 0.9999, ("0.5", "at least 0.9999")),
        (float("inf"), 1e-6, ("∞", "at least 1e-06")),
    ],
)
def test_a_measurement_just_below_one_differs_from_its_limit(value, limit, shown):
    found = {"check_state": "passed", "check": "cosine", "value": value, "limit": limit, "least": True}
    texts = measured_texts(found)
    assert (texts["value"], texts["limit"]) == shown


def test_no_rob_of_a_deterministic_defense_has_one_wording(tmp_path):
    report = build_report(write(tmp_path / "small", [*deterministic(), *stochastic()]))
    for section, head in (("results", "Rob(5)"), ("attacks", "Rob(5) %")):
        (table,) = tables(report, section)
        at = table["columns"].index(head)
        by_defense = {}
        for row in table["rows"]:
            by_defense.setdefault(row[0], set()).add(row[at])
        assert by_defense["plain"] == {"one draw"}
        assert "one draw" not in by_defense["noisy"]


def test_given_images_are_told_by_their_checksum():
    recipe = Recipe("given:", "sha256 293c", (("minimisation", "True"),), "0", "white-box", (), (), ())
    assert recipe.text == "images from a file, sha256 293c, minimisation = True"
