"""What a row is made of: its parts with parameters, its weights with network, recipe and seconds, its paper."""

import json
import re

import pytest
from boards import ROOT
from fake_board import deterministic, write
from site_pages import Page

from bench.site.build import build_site
from defenses.zoo.cards import card

PUBLISHED = ("adp", "smoothing", "defense-gan", "trades")
DEFENSES = (*PUBLISHED, "magnet-jsd", "undefended")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    build_site(ROOT / "results/digits-defenses", out, gallery=0)
    return out / "b/digits-defenses"


def tables(source):
    """Rows of the tables of the composition by title, as {head: text}."""
    part = source.partition('<h2 id="composition">')[2].partition("<h2")[0]
    found = {}
    for title, table in re.findall(r"<h3>(.*?)</h3>.*?<table>(.*?)</table>", part, re.DOTALL):
        rows = [[t for tag, _, t in Page(row).elements if tag in ("th", "td")]
                for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]  # fmt: skip
        found[title] = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    return found


def fingerprint(label):
    return json.loads((ROOT / "results/digits-defenses/manifest.json").read_text())["defenses"][label]


@pytest.mark.parametrize("label", DEFENSES)
def test_parts_have_the_parameters_of_the_fingerprint(label, site):
    rows = {row["part"]: row for row in tables((site / f"{label}.html").read_text())["Parts"]}
    own = fingerprint(label)
    for part in (own, *own.get("around", ())):
        shown = rows[part["name"]]["parameters"]
        expected = {k: v for k, v in part["parameters"].items() if k not in ("classifier", "detector", "filters")}
        assert shown == (", ".join(f"{k} = {v}" for k, v in sorted(expected.items())) or "none")


@pytest.mark.parametrize("label", DEFENSES)
def test_weights_have_network_recipe_and_seconds_of_the_file_beside_them(label, site):
    rows = {row["weights"]: row for row in tables((site / f"{label}.html").read_text())["Weights"]}
    own = fingerprint(label)
    hashes = {name: sha for part in (own, *own.get("around", ())) for name, sha in part["weights"].items()}
    assert rows.keys() == hashes.keys()
    for name, sha in hashes.items():
        described = json.loads((ROOT / f"defenses/weights/digits/{name}.json").read_text())
        recipe, row = described["recipe"], rows[name]
        assert row["SHA-256"] == sha == described["sha256"]
        assert row["network"].startswith(described["network"]["kind"])
        assert f"{recipe['steps']:,} steps of {recipe['batch']} images" in row["training"]
        assert row["training"].startswith(f"{recipe['method']} on digits, seed {recipe['seed']}")
        for phase in recipe["phases"]:
            assert f"{phase['optimizer']}, learning rate {phase['lr']:g}" in row["training"]
        assert row["took"].startswith(f"{recipe['seconds']:,.0f} s on {recipe['device']} with torch")


@pytest.mark.parametrize("label", PUBLISHED)
def test_the_paper_is_a_link(label, site):
    facts = (site / f"{label}.html").read_text().partition('<dl class="facts">')[2].partition("</dl>")[0]
    links = [(a["href"], a["rel"]) for _, a, _ in Page(facts).all("a")]
    assert links == [(card(fingerprint(label)["name"]).url, "noreferrer")]


def test_weights_of_several_trainings_and_without_a_description_are_told_apart(tmp_path):
    folder = write(tmp_path / "one", deterministic(), None)
    manifest = json.loads((folder / "manifest.json").read_text())
    first, second = ({"name": "pgd-at", "parameters": {}, "weights": {"mine": letter * 64}} for letter in "ab")
    manifest["defenses"] = {"plain": first, "plain (training seed 1)": second | {"training_seed": 1}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    build_site(folder, tmp_path / "site")
    rows = tables((tmp_path / "site/b/one/plain.html").read_text())["Weights"]
    assert {row["weights"]: row["SHA-256"][0] for row in rows} == {"mine": "a", "mine.seed1": "b"}
    assert {row["training"] for row in rows} == {"not described"}


def test_a_damaged_description_of_the_users_weights_describes_nothing(tmp_path, monkeypatch):
    (folder := tmp_path / "weights/digits").mkdir(parents=True)
    (folder / "a.json").write_text("{")
    (folder / "b.json").write_text(json.dumps({"sha256": "b" * 64, "recipe": {"phases": [{}]}}))
    monkeypatch.setenv("PUREBENCH_WEIGHTS", str(tmp_path / "weights"))
    build_site(write(tmp_path / "one", deterministic()), tmp_path / "site")
    assert (tmp_path / "site/index.html").is_file()
