"""The page that says how to repeat results: a clone, the commit of most cells, the commands, and the seconds."""

import html
import json
import re
import shlex
from collections import Counter

import pytest
from boards import ROOT
from fake_board import deterministic, recorded, result, write
from fake_board import line as fake_line

from bench.cli.main import build_parser
from bench.site.build import build_site
from bench.store.manifest import read_runs
from bench.store.reader import read_folder

NAMES = ("digits-audit", "digits-linf", "reproduction-digits", "corruptions-digits", "smooth-digits-denoised")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    build_site([ROOT / "results" / name for name in NAMES], out, gallery=0)
    return (out / "reproduce.html").read_text()


def block(text):
    """Lines of the first block of a text."""
    return html.unescape(re.search(r"<pre[^>]*>(.*?)</pre>", text, re.DOTALL)[1]).splitlines()


def place(source, name):
    """What the page says of a folder, by its title or name."""
    found = [text for text in source.split("<section>")[1:] if f"<code>{name}</code>" in text or f'id="{name}"' in text]
    (text,) = [text for text in found if re.search(rf'id="(t-)?{name}"', text)] or found
    return text


def cells_of(name):
    return [c for c in read_folder(ROOT / "results" / name, lambda cells, _: cells) if c["status"] == "ok"]


def test_it_begins_with_a_clone_and_each_block_names_the_commits_of_its_cells(source):
    assert block(source)[:3] == ["git clone REPOSITORY purebench", "cd purebench", "pip install uv"]
    assert block(source)[3:] == ["uv sync && . .venv/bin/activate"]
    assert "git checkout" not in source  # the results are not there at the commits that made them
    for name in NAMES:
        made_at, *_ = block(place(source, name))
        commits = {run["id"]: run["git"]["commit"] for run in read_runs(ROOT / "results" / name)}
        if name.startswith(("digits", "reproduction")):
            made = Counter(commits.get(cell["run"], "") for cell in cells_of(name))
            unknown = made.pop("", 0)
            assert made[re.match(r"# made at (\w+)", made_at)[1]] == max(made.values())
            assert all(f"{commit} ({n} cell" in made_at for commit, n in made.items())
            assert (f"{unknown} cells at a commit that is not recorded" in made_at) == (unknown > 0)
        else:
            assert all(commit in made_at for commit in commits.values())


def test_a_folder_is_repeated_in_an_empty_one_by_commands_that_parse(source):
    parser = build_parser()
    for name in NAMES:
        lines = [line for line in block(place(source, name)) if line.startswith("purebench ")]
        for line in lines:
            parser.parse_args(shlex.split(line)[1:])
        first = shlex.split(lines[0])
        assert first[-2:] == ["--out", "again"]
        assert first.count("--out") == 1
    (run,) = [line for line in block(place(source, "digits-linf")) if line.startswith("purebench run")]
    assert run == "purebench run leaderboards/digits-linf.toml --out again"


@pytest.mark.parametrize("name", ["digits-audit", "digits-linf"])
def test_seconds_are_those_of_the_cells(name, source):
    cells = cells_of(name)
    attacks, verdicts = (sum(cell[f"seconds_{of}"] for cell in cells) for of in ("attack", "verdict"))
    told = re.search(r"in (\d+) cells, one after another: ([\d,]+) s of attacks and ([\d,]+) s", place(source, name))
    assert int(told[1]) == len(cells)
    assert [int(text.replace(",", "")) for text in told.groups()[1:]] == [round(attacks), round(verdicts)]


def test_seconds_of_other_results_are_those_of_their_runs(source):
    runs = read_runs(ROOT / "results/corruptions-digits")
    assert f"It took {sum(run['seconds'] for run in runs) / 60:.0f} min in {len(runs)} runs." in place(
        source, "corruptions-digits"
    )


CHALLENGE = "purebench challenge results/fake --defense plain --images x.npz --keep"


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        (CHALLENGE, ["purebench run fake --out again", CHALLENGE]),
        ("purebench run fake.toml --defense plain --quiet", ["purebench run fake.toml --defense plain --out again"]),
        ("purebench", ["purebench run fake --out again"]),
        ("(from Python)", ["purebench run fake --out again"]),
    ],
)
def test_commands_are_those_of_the_runs_that_made_cells(typed, again, tmp_path):
    folder = recorded(tmp_path / "fake", deterministic(), [r.line for r in deterministic()])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("sum", None)
    manifest["runs"][0] |= {"command": typed, "git": {"commit": "c" * 40, "dirty": True}}
    manifest["runs"].append({"id": "none", "command": "purebench smooth fake"})  # has made nothing
    (folder / "manifest.json").write_text(json.dumps(manifest))
    build_site([folder], tmp_path / "site")
    source = (tmp_path / "site/reproduce.html").read_text()
    lines = block(source.partition("<section>")[2])
    assert lines[0] == f"# made at {'c' * 40} with changes (4 cells)"
    assert lines[1:] == [*again, "purebench verify fake", "purebench diff fake again"]
    assert "with changes (4 cells)" in source.partition("<footer>")[2]


def test_a_folder_without_runs_says_that_its_commit_is_not_recorded(tmp_path):
    rows = [result(fake_line("no", "none"), [1] * 6)]
    build_site([write(tmp_path / "bare", rows)], tmp_path / "site")
    lines = block((tmp_path / "site/reproduce.html").read_text().partition("<section>")[2])
    assert lines[0] == "# which commit made these cells is not recorded"
    assert lines[1] == "purebench run bare --out again"
