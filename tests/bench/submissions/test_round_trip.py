"""A row that is packed, checked and added is the row that it was, and nothing of it runs."""

import json
import shutil
import tomllib
import zipfile
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from boards import purebench, purebench_here
from submitted import LABEL, changed, pack, read_zip, the_part, with_lines

from bench import __version__, leaderboard, load_draws, load_results
from bench.board.load import load_board
from bench.site.build import build_site
from bench.spec.submission import AGAINST, CHECKS, HOLDS, REFUSED, RERUN
from bench.store.audits import read_audits
from bench.store.manifest import read_manifest
from bench.submissions import check as checks
from defenses.data.dataset import load_dataset


def submit(*arguments):
    return purebench_here("submit", *arguments)


def test_the_same_row_gives_the_same_bytes(made, tmp_path):
    done = pack(made, tmp_path / "again.zip")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"14 files of noisy in {tmp_path / 'again.zip'}\n"
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


def test_its_crate_describes_every_file(made):
    """The same metadata as a report's: runs, software, and files of the zip with the checksums of submission.json."""
    files = read_zip(made / "row.zip")
    graph = json.loads(files["ro-crate-metadata.json"])["@graph"]
    listed = json.loads(files["submission.json"])["files"]
    described = {unquote(e["@id"]): (e["sha256"], int(e["contentSize"])) for e in graph if e["@type"] == "File"}
    wanted = {name: (of["sha256"], of["size"]) for name, of in listed.items() if name != "ro-crate-metadata.json"}
    assert described == wanted
    assert set(wanted) == files.keys() - {"ro-crate-metadata.json", "submission.json"}
    (action,) = [e for e in graph if e["@type"] == "CreateAction"]
    (run,) = json.loads(files["results/manifest.json"])["runs"]
    assert (action["description"], action["startTime"]) == (run["command"], run["started"])
    assert {"@id": "results/manifest.json"} in action["result"]
    assert {e["softwareVersion"] for e in graph if e["@type"] == "SoftwareApplication"} == {__version__}


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


def towards_the_nearest_class(eps):
    """The board's images, each moved by eps towards the class mean that it then lies nearest to."""
    train, data = load_dataset("digits", "train"), load_dataset("digits")
    means = np.stack([train.x[train.y == label].mean(0).numpy() for label in range(10)])
    moved = []
    for x, y in zip(data.x[:12].numpy(), data.y[:12].tolist(), strict=True):
        ways = [np.clip(x + eps * np.sign(means[k] - means[y]), 0, 1) for k in range(10) if k != y]
        other = [means[k] for k in range(10) if k != y]
        gaps = [((z - m) ** 2).sum() - ((z - means[y]) ** 2).sum() for z, m in zip(ways, other, strict=True)]
        sizes = [np.sqrt(((m - means[y]) ** 2).sum()) for m in other]
        moved.append(ways[int(np.argmin(np.divide(gaps, sizes)))])
    return np.stack(moved).astype(np.float32)


@pytest.fixture(scope="module")
def challenged(made, tmp_path_factory):
    """A copy of the folders whose whole/ keeps a challenge of the row and one of another row; new.zip is its zip."""
    folder = shutil.copytree(made, tmp_path_factory.mktemp("challenged") / "made")
    np.savez(folder / "near.npz", x_adv=towards_the_nearest_class(0.1))
    for defense in (LABEL, "linear"):
        options = ("--defense", defense, "--images", folder / "near.npz", "--code", folder, "--name", f"of-{defense}")
        done = purebench_here("challenge", folder / "whole", *options, "--keep", "--author", "A", "--link", "L")
        assert done.returncode == 0, done.stderr
    done = pack(folder, folder / "new.zip")
    assert done.returncode == 0, done.stderr
    return folder


def row_of(folder):
    frame = leaderboard(folder)
    columns = [c for c in frame if c.startswith(("worst", "clean"))]
    return frame.loc[frame["defense"] == LABEL, columns].to_dict("records")


def test_kept_challenges_go_with_their_row(challenged, made, board, tmp_path):
    """Packed, checked and added, the row has the worst case that it has on its own board."""
    row = row_of(challenged / "whole")
    assert row[0]["worst_mean"] <= row_of(made / "whole")[0]["worst_mean"]
    files = read_zip(challenged / "new.zip")
    assert [json.loads(line)["attack"] for line in files["results/challenges.jsonl"].splitlines()] == ["given:of-noisy"]
    for name, content in files.items():
        (tmp_path / "zip" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "zip" / name).write_bytes(content)
    assert row_of(tmp_path / "zip/results") == row
    done = submit("check", challenged / "new.zip", "--to", board)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"worst case {100 * row[0]['worst_mean']:.2f} " in done.stdout
    assert submit("add", challenged / "new.zip", "--to", board).returncode == 0
    assert row_of(board) == row
    for folder in (challenged / "whole", tmp_path / "zip/results", board):
        rows = load_results(folder).query("defense == 'noisy' and attack == 'given:of-noisy'")
        assert len(rows) == 12
    again = purebench_here("submit", "pack", board, "--defense", LABEL, "--out", tmp_path / "again.zip",
                           "--card", made / "card.toml", "--code", made)  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert read_zip(tmp_path / "again.zip")["results/challenges.jsonl"] == files["results/challenges.jsonl"]


def test_forged_challenges(challenged, board, tmp_path):
    """A challenge of another defense, of other images, and one whose images are gone."""

    def lines(change):
        def of(files):
            with_lines(files, lambda line: change(line) if line["attack"].startswith("given:") else None,
                       "results/challenges.jsonl", the_part(files, "cells.jsonl"))  # fmt: skip

        return changed(challenged / "new.zip", tmp_path / "row.zip", of)

    def found(zipped):
        done = submit("check", zipped, "--to", board)
        assert done.returncode == 1
        return done.stdout

    assert "results: it holds linear, noisy, and must hold noisy alone" in found(
        lines(lambda line: line.update(defense="linear"))
    )
    assert "keys: given:of-noisy | given | images from 0: images is 1 in its line" in found(
        lines(lambda line: line.update(images=1))
    )
    gone = changed(challenged / "new.zip", tmp_path / "row.zip", lambda files: files.pop("results/challenges.jsonl"))
    assert "results: 1 stored cell not in its plan" in found(gone)

    def planned(files):
        files["results/challenges.jsonl"] = files["results/plan.jsonl"]

    assert "it stands among the challenges, and is none" in found(
        changed(challenged / "new.zip", tmp_path / "row.zip", planned)
    )


def test_the_help_of_check_names_its_exit_codes():
    text = " ".join(purebench("submit", "check", "--help").stdout.split())
    assert (
        "Exit codes: 0 all checks pass; 1 a check fails; 2 no submission, a damaged zip, or --to names no board."
        in text
    )
