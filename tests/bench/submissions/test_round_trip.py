"""A row that is packed, checked and added is the row that it was, and nothing of it runs."""

import json
import tomllib
import zipfile

import pandas as pd
from boards import purebench_here
from submitted import LABEL, pack, read_zip

from bench import leaderboard, load_draws, load_results
from bench.board.load import load_board
from bench.site.build import build_site
from bench.spec.submission import AGAINST, CHECKS, HOLDS, REFUSED, RERUN
from bench.store.audits import read_audits
from bench.store.manifest import read_manifest
from bench.submissions import check as checks


def submit(*arguments):
    return purebench_here("submit", *arguments)


def test_the_same_row_gives_the_same_bytes(made, tmp_path):
    done = pack(made, tmp_path / "again.zip")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"13 files of noisy in {tmp_path / 'again.zip'}\n"
    assert (tmp_path / "again.zip").read_bytes() == (made / "row.zip").read_bytes()
    assert not (made / "imported").exists()
    assert {info.date_time for info in zipfile.ZipFile(made / "row.zip").infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_zip_holds_this_defense_alone(made):
    files = read_zip(made / "row.zip")
    assert b"linear" not in files["results/plan.jsonl"]
    assert list(json.loads(files["results/manifest.json"])["defenses"]) == [LABEL]
    assert files["code/models.py"] == (made / "models.py").read_bytes()
    assert {name.partition("/")[0] for name in files} == {name.rstrip("/") for name in HOLDS}
    assert str(made).encode() not in b"".join(files[n] for n in files if n.endswith((".json", "l")))


def test_its_board_file_is_the_board(made, tmp_path, monkeypatch):
    for name, content in read_zip(made / "row.zip").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    planned = [json.loads(line)["key"] for line in (tmp_path / "results/plan.jsonl").read_text().splitlines()]
    assert [cell.key for cell in load_board("board.toml").cells()] == planned
    assert tomllib.loads((tmp_path / "board.toml").read_text())["indices"] == "first-12"


def test_a_sound_row_passes_and_runs_nothing(made, board):
    done = submit("check", made / "row.zip", "--to", board)
    assert (done.returncode, done.stderr) == (0, "")
    row, claims, last = done.stdout.splitlines()
    assert row.startswith(f"noisy at Linf 1/10 on {board.name}, rank 1")
    assert " of 2: worst case " in row
    assert "audit: pass" in row
    assert (claims, last) == ("1 claim on its card", "all checks pass")
    assert not (made / "imported").exists()


def test_by_itself_it_has_the_first_rank(made):
    done = submit("check", made / "row.zip")
    assert done.returncode == 0
    assert "noisy at Linf 1/10 by itself, rank 1 of 1: " in done.stdout


def test_rerun_says_so_and_runs_the_code(made, capsys):
    """The marker of an import shows that the tests on its absence can fail."""
    done = submit("check", made / "row.zip", "--rerun", 2)
    assert done.returncode == 0, done.stdout
    assert done.stderr == "judging 2 images of each cell again; this runs models.py:noisy, models.py:slow\n"
    assert (made / "imported").is_file()


def test_an_added_row_is_the_row_of_the_whole_board(made, board):
    done = submit("add", made / "row.zip", "--to", board)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"noisy is on {board} now\n"
    assert not (made / "imported").exists()
    whole = made / "whole"
    columns = [c for c in leaderboard(whole) if c != "results" and "seconds" not in c]
    one, other = (leaderboard(folder).set_index("defense")[columns[:1] + columns[9:]] for folder in (whole, board))
    pd.testing.assert_frame_equal(one.loc[[LABEL]], other.loc[[LABEL]])
    one, other = (f[f["defense"] == LABEL].drop(columns="seconds") for f in map(load_results, (whole, board)))
    pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True))
    assert len(load_draws(board)) == len(load_draws(whole))
    assert read_audits(board) == read_audits(whole)
    assert {r["id"] for f in ("board", "whole") for r in read_manifest(made / f)["runs"]} == {
        run["id"] for run in read_manifest(board)["runs"]
    }


def test_table_and_site_show_an_added_row(made, board, tmp_path):
    assert submit("add", made / "row.zip", "--to", board, "--quiet").stdout == ""
    tables = [purebench_here("table", folder).stdout.splitlines() for folder in (board, made / "whole")]
    rows = [[line for line in table if line.startswith(LABEL)] for table in tables]
    assert rows[0]
    assert rows[0][0].split()[:4] == rows[1][0].split()[:4]
    build_site([board], tmp_path / "site")
    assert LABEL in (tmp_path / "site/b/small/index.html").read_text()
    kept = list((board / "submissions").iterdir())
    assert [sorted(p.name for p in folder.iterdir()) for folder in kept] == [
        ["board.toml", "card.toml", "code", "submission.json"]
    ]


def test_page_and_program_have_one_list(made, tmp_path):
    """Each text of a check is on the page, and each check of the page is made."""
    from site_pages import Page

    assert [*checks.OPENING, *checks.OF_ROW] == list(CHECKS)
    assert list(checks.OF_BOARD) == list(AGAINST)
    build_site([made / "board"], tmp_path / "site")
    page = Page((tmp_path / "site/submit.html").read_text())
    said = {element[2] for element in (*page.all("dd"), *page.all("li"))}
    assert said == {*CHECKS.values(), *AGAINST.values(), *RERUN.values(), *HOLDS.values(), *REFUSED}
    assert {text for tag, _, text in page.all("dt")} == {*CHECKS, *AGAINST, *RERUN, *HOLDS}
    links = [a.get("href") for _, a, _ in Page((tmp_path / "site/index.html").read_text()).all("a")]
    assert "submit.html" in links
