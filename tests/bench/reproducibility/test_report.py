"""The report: one document in four formats, from any results folder."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
from boards import ROOT
from fake_board import HOSTILE, deterministic, failed, line, result, stochastic, write
from site_pages import Page, hostile, many, mixed

from bench import build_report, leaderboard
from bench.attacks.budgets import GREEDY
from bench.cli.main import main
from bench.reproducibility.report import FORMATS
from defenses.utils.errors import UserError

SECTIONS = [
    "summary",
    "protocol",
    "checklist-carlini2019",
    "checklist-neurips",
    "defenses",
    "results",
    "attacks",
    "claims",
    "audit",
    "certificates",
    "environment",
    "cost",
    "deviations",
    "availability",
    "repeat",
]
TRACKS = ["corruptions-digits", "digits-poisoning", "smooth-digits-smoothing"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report") / "small", [*deterministic(), *stochastic()])


@pytest.fixture(scope="module")
def report(small):
    return build_report(small)


def texts(report):
    """Texts of all tables and lists of a report, by section."""
    sections = json.loads(report.json())["sections"]
    return {section["name"]: json.dumps(section["blocks"], ensure_ascii=False) for section in sections}


def test_every_format_has_every_section(report):
    assert [section["name"] for section in json.loads(report.json())["sections"]] == SECTIONS
    assert [name for name in Page(report.html()).ids if name in SECTIONS] == SECTIONS
    assert re.findall(r'<a id="([\w-]+)">', report.markdown()) == SECTIONS
    assert report.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_results_give_the_same_bytes(form, small, report):
    assert build_report(small).write(form) == report.write(form)
    assert b"CreationDate" not in report.write(form)


def test_numbers_are_those_of_the_leaderboard(small, report):
    rows = {row["defense"]: row for row in json.loads(report.json())["leaderboard"]}
    frame = leaderboard(small).set_index("defense")
    assert rows.keys() == set(frame.index)
    (table,) = [b for s in json.loads(report.json())["sections"] if s["name"] == "results" for b in s["blocks"]
                if b["kind"] == "table"]  # fmt: skip
    for shown in table["rows"]:
        row = frame.loc[shown[0]]
        assert rows[shown[0]]["worst_mean"] == row["worst_mean"]
        assert (
            shown[2] == f"{100 * row['worst_mean']:.1f} [{100 * row['worst_low']:.1f}, {100 * row['worst_high']:.1f}]"
        )
        for text in (report.markdown(), report.html()):
            assert shown[2] in text


def test_links_lead_somewhere_and_the_page_asks_for_nothing(report):
    page = Page(report.html())
    assert len(page.ids) == len(set(page.ids))
    inside = {a["href"][1:] for _, a, _ in page.all("a") if a.get("href", "").startswith("#")}
    assert inside <= set(page.ids)
    assert page.all("script") == page.all("link") == []
    assert all(a["src"].startswith("data:image/svg+xml;base64,") for _, a, _ in page.all("img"))
    assert len(page.all("img")) == 2
    assert all(a["alt"] for _, a, _ in page.all("img"))
    assert not re.search(r"url\(|@import|\son\w+=|style=", report.html())


def test_deviations_tell_what_is_short_missing_and_unchecked(tmp_path):
    rows = [
        result(line("short", "none"), [1] * 6),
        result(line("short", "pgd", warnings=["steps = 5 is short; give 100 or more"]), [0] * 6),
        result(line("gap", "none"), [1] * 6),
        failed(line("gap", "pgd"), "error", "boom"),
        result(line("no", "none"), [1] * 6),
        failed(line("no", "pgd"), "unsupported", "no gradients"),
    ]
    planned = [{k: v for k, v in r.line.items() if k in line("", "", training_seed=0)} for r in rows]
    folder = write(tmp_path / "all", rows, [*planned, line("short", "square")])
    found = texts(build_report(folder))
    for text in ("short budget: pgd on short: steps = 5 is short", "pgd ended in an error on gap (1 cell): boom",
                 "pgd cannot run on no (1 cell): no gradients", "square has no result on short (1 cell)",
                 "not audited: ", "no run is recorded", "gap: no rank: "):  # fmt: skip
        assert text in found["deviations"], text
    assert "2 of 7 cells have no result" in found["availability"]


def test_a_greedy_path_is_no_short_budget(tmp_path):
    rows = [result(line("plain", "none"), [1] * 6), result(line("plain", "deepfool", warnings=[GREEDY]), [0] * 6)]
    found = texts(build_report(write(tmp_path / "greedy", rows)))
    assert f"one greedy path: deepfool on plain: {GREEDY}" in found["deviations"]
    assert "short budget" not in found["deviations"]
    assert "greedy: follows one path to the nearest boundary" in found["attacks"]
    assert "short:" not in found["attacks"]


def test_outdated_and_failed_audits_and_mixed_runs_are_told(tmp_path):
    folder = write(tmp_path / "mixed", deterministic())
    manifest = json.loads((folder / "manifest.json").read_text())
    run = {
        "id": "a",
        "command": "purebench run b.toml",
        "git": {"commit": "1" * 40, "dirty": True},
        "versions": {"torch": "2"},
    }
    other = run | {"id": "b", "git": {"commit": "2" * 40, "dirty": False}, "versions": {"torch": "3"}, "seconds": 2.0}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"runs": [run, other]}))
    found = texts(build_report(folder))
    for text in ("runs on 2 commits: 1111111111, 2222222222", "several sets of versions",
                 "1 run with uncommitted changes", "1 run that did not finish"):  # fmt: skip
        assert text in found["deviations"]
    assert "purebench run b.toml --defense plain --out again" in found["repeat"]
    assert "a run has no commit, or changes beside it" in found["availability"]


def test_hostile_names_harm_nothing(tmp_path):
    report = build_report(hostile(tmp_path / "h"))
    page = Page(report.html())
    assert page.all("script") == []
    assert not [a for _, a, _ in page.all("a") if a["href"].startswith("javascript:")]
    assert not [text for text in report.markdown().splitlines() if "<script>" in text and not text.startswith("    ")]
    for form in ("html", "md", "json"):
        text = report.write(form).decode()
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert report.pdf().startswith(b"%PDF")
    assert HOSTILE in {row["defense"] for row in json.loads(report.json())["leaderboard"]}


def test_a_script_of_other_letters_makes_a_pdf(tmp_path):
    folder = write(tmp_path / "letters", [result(line("防御", "none"), [1] * 6), result(line("防御", "攻撃"), [1] * 6)])
    assert build_report(folder).pdf().startswith(b"%PDF")


@pytest.mark.parametrize("make", [mixed, lambda folder: many(folder, 3, 2)])
def test_boards_with_gaps_and_many_rows(tmp_path, make):
    report = build_report(make(tmp_path / "board"))
    assert all(report.write(form) for form in FORMATS)


@pytest.mark.parametrize("name", TRACKS)
def test_results_that_are_no_board(name):
    report = build_report(ROOT / "results" / name)
    assert [section.name for section in report.document.sections] == SECTIONS
    assert all(report.write(form) for form in ("md", "html", "json"))
    assert "not applicable" in texts(report)["checklist-carlini2019"]


def test_chosen_rows_and_checklists(small):
    report = build_report(small, defenses=["plain"], checklists=["neurips"])
    names = [section.name for section in report.document.sections]
    assert "checklist-neurips" in names
    assert "checklist-carlini2019" not in names
    assert "noisy" not in texts(report)["attacks"]
    assert "this report has 1 of 2 rows" in texts(report)["deviations"]


def test_acm_words_are_no_badges(report):
    found = texts(report)["availability"]
    for word in ("available", "functional", "reproduced"):
        assert f'["{word}", ' in found
    assert '["reproduced", "does not support"' in found


def test_save_by_its_ending(report, tmp_path):
    for form in FORMATS:
        assert report.save(tmp_path / f"r.{form}").read_bytes() == report.write(form)
    with pytest.raises(UserError, match=r"r\.doc is of no known format"):
        report.save(tmp_path / "r.doc")


def refused(capsys, *arguments):
    assert main(["report", *map(str, arguments)]) == 2
    (text,) = capsys.readouterr().err.strip().splitlines()
    return text


def test_bad_input_is_refused_in_one_line(tmp_path, small, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "holds no results" in refused(capsys, "empty")
    assert 'unknown defense "plian"; did you mean plain' in refused(capsys, small, "--defense", "plian")
    assert "there is no folder no" in refused(capsys, small, "--out", "no/r.md")
    assert "is of no known format" in refused(capsys, small, "--out", "r.doc")
    assert "--format is pdf, and r.md ends in another way" in refused(capsys, small, "--out", "r.md", "--format", "pdf")
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(small), "--format", "docx"])
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(small), "--checklist", "carlini"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_damaged_part_is_named(tmp_path, capsys):
    folder = write(tmp_path / "damaged", deterministic())
    part = next((folder / "parts").iterdir())
    (part / "records.parquet").write_bytes(b"x")
    assert str(part) in refused(capsys, folder, "--out", tmp_path / "r.md")
    assert not (tmp_path / "r.md").exists()


def test_without_typst_pdf_says_what_to_install(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "typst", None)
    assert "pip install 'purebench[report]'" in refused(capsys, small, "--out", tmp_path / "r.pdf")


def test_the_command_writes_a_report_and_its_crate(small, tmp_path, capsys):
    assert main(["report", str(small), "--out", str(tmp_path / "r.json"), "--crate"]) == 0
    assert "r.json and " in capsys.readouterr().out
    graph = json.loads((tmp_path / "ro-crate-metadata.json").read_text())["@graph"]
    (entity,) = [e for e in graph if e["@id"] == "r.json"]
    assert entity["sha256"] == hashlib.sha256((tmp_path / "r.json").read_bytes()).hexdigest()


def test_no_torch_is_imported(small, tmp_path):
    code = (
        "import sys; from bench.cli.main import main\n"
        f"main(['report', {str(small)!r}, '--out', {str(tmp_path / 'r.pdf')!r}])\n"
        "print(sorted(sys.modules.keys() & {'torch', 'sklearn'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_print_of_a_board_of_42_rows_has_twelve_pages():
    content = build_report(ROOT / "results/digits-defenses").pdf()
    assert 1 <= len(re.findall(rb"/Type ?/Page\b", content)) <= 12
