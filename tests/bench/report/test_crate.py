"""RO-Crate metadata: the fields that Process Run Crate 0.5 demands, and checksums that are right."""

import hashlib
import json
from urllib.parse import unquote

import pytest
from boards import ROOT
from fake_board import deterministic, write

from bench.report.crate import Described, crate
from bench.site.build import build_site
from bench.store.manifest import read_runs

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
FOLDERS = sorted(path for path in (ROOT / "results").iterdir() if path.is_dir())


def graph_of(folder, inside="", files=None):
    text = crate([Described(folder, f"results/{folder.name}", inside)], files or {}, name="n", about="a")
    assert text == crate([Described(folder, f"results/{folder.name}", inside)], files or {}, name="n", about="a")
    content = json.loads(text)
    found = {entity["@id"]: entity for entity in content["@graph"]}
    assert len(found) == len(content["@graph"])
    return found


def references(entity):
    for value in entity.values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield one["@id"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_the_profile_demands(folder):
    found = graph_of(folder)
    assert found["ro-crate-metadata.json"]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert found["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = found["./"]
    assert root["@type"] == "Dataset"
    assert root["conformsTo"] == {"@id": PROFILE}
    assert found[PROFILE]["@type"] == "CreativeWork"
    assert {"name", "description", "license", "datePublished"} <= root.keys()
    actions = [e for e in found.values() if e["@type"] == "CreateAction"]
    assert [action["@id"] for action in actions] == [to["@id"] for to in root["mentions"]]
    assert len(actions) == len(read_runs(folder)) > 0
    for action in actions:
        software = found[action["instrument"]["@id"]]
        assert software["@type"] == "SoftwareApplication"
        assert software["name"] == "purebench"
        assert software["softwareVersion"]
        assert "git commit " in software["identifier"]
        assert {"name", "description", "startTime", "result", "object"} <= action.keys()
        # A run that was killed has no end.
        assert ("endTime" in action) == action["actionStatus"].endswith("/CompletedActionStatus")
    assert any("endTime" in action for action in actions)
    known = {"https://w3id.org/ro/crate/1.1"} | found.keys()
    assert [to for entity in found.values() for to in references(entity) if to not in known] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_sizes_and_checksums_are_those_of_the_files(folder):
    files = [e for e in graph_of(folder).values() if e["@type"] == "File"]
    assert {unquote(e["@id"]) for e in files} == {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (path.parent.name != "audit" or path.name == "audit.json")
    }
    for entity in files:
        content = (folder / unquote(entity["@id"])).read_bytes()
        assert entity["contentSize"] == str(len(content))
        assert entity["sha256"] == hashlib.sha256(content).hexdigest()


def test_runs_made_the_parts_that_hold_their_cells():
    found = graph_of(ROOT / "results/digits-linf", "results/digits-linf/")
    made = [to["@id"] for e in found.values() if e["@type"] == "CreateAction" for to in e["result"]]
    parts = {f"results/digits-linf/{path.relative_to(ROOT / 'results/digits-linf').as_posix()}/"
             for path in (ROOT / "results/digits-linf/parts").iterdir()}  # fmt: skip
    assert parts <= set(made)
    inputs = {to["@id"] for e in found.values() if e["@type"] == "CreateAction" for to in e["object"]}
    assert "results/digits-linf/plan.jsonl" in inputs
    assert sum(name.startswith("#weights-") for name in inputs) >= 3


def test_results_elsewhere_are_told_by_name_and_checksum(tmp_path):
    folder = write(tmp_path / "x", deterministic())
    found = graph_of(folder, None, {"report of x.md": b"text"})
    assert [e["name"] for e in found.values() if e["@type"] == "File"] == ["report of x.md"]
    assert found["report%20of%20x.md"]["sha256"] == hashlib.sha256(b"text").hexdigest()
    outside = [e for e in found.values() if e["@id"].startswith("#results/x/") and "sha256" in e]
    assert {e["@type"] for e in outside} == {"CreativeWork"}
    assert len(outside) > 4


def test_a_site_has_a_crate_of_its_data(tmp_path):
    build_site([write(tmp_path / "x", deterministic())], tmp_path / "site")
    data = tmp_path / "site/data"
    graph = json.loads((data / "ro-crate-metadata.json").read_text())["@graph"]
    files = {unquote(e["@id"]): e["sha256"] for e in graph if e["@type"] == "File"}
    assert files.keys() == {path.name for path in data.iterdir()} - {"ro-crate-metadata.json", "site.json"}
    for name, sha in files.items():
        assert hashlib.sha256((data / name).read_bytes()).hexdigest() == sha
