"""A board or its results folder, whichever a user has; bad values of options are one line."""

import shutil

import pytest
from boards import ROOT

from bench.cli.main import main


def run(capsys, *words):
    try:
        code = main([str(word) for word in words])
    except SystemExit as exit_:
        code = exit_.code
    shown = capsys.readouterr()
    return code, shown.out, shown.err.strip().splitlines()


@pytest.fixture
def beside_results(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    shutil.copytree(ROOT / "results" / "digits-gan", tmp_path / "results" / "digits-gan")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_board_stands_for_its_results_folder(beside_results, capsys):
    code, by_board, _ = run(capsys, "table", "digits-gan")
    assert code == 0
    assert by_board == run(capsys, "table", "results/digits-gan")[1]
    (beside_results / "mine.toml").write_text('name = "digits-gan"\n')
    assert run(capsys, "table", "mine.toml")[1] == by_board


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("table", "quickstart"), "results/quickstart is no results folder (it has no plan.jsonl); run a board first"),
        (("table", "digit-gan.toml"), "there is no file digit-gan.toml"),
        (("plan", "digits-ganx"), "did you mean digits-gan"),
        (("plan", "quickstart", "--power", "0.9"), "--power belongs to --detect; add it, as --detect 3pp"),
        (("verify", "results/digits-gan", "--code", "nowhere"), "there is no folder nowhere; give --code"),
        (("certify", "adp", "--dataset", "digit"), "did you mean digits"),
        (("corruptions", "adp", "--dataset", "cifar10-d"), "did you mean cifar10"),
        (("train", "adp", "--dataset", "cifar11"), "--set recipe=mnist"),
        (("run", "--preset", "standard", "--defense", "adp", "--dataset", "digit", "--eps", "1/5"), "mean digits"),
    ],
)
def test_bad_input_is_one_line_with_a_remedy(words, message, beside_results, capsys):
    code, _, lines = run(capsys, *words)
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("track", ["corruptions-digits", "digits-poisoning"])
def test_results_of_other_tracks_name_their_table(track, capsys):
    code, _, (line,) = run(capsys, "table", ROOT / "results" / track)
    assert code == 2
    assert f"{track}/tables.md" in line


def test_plan_of_a_folder_without_its_board(beside_results, capsys):
    code, by_folder, _ = run(capsys, "plan", "results/digits-gan")
    assert code == 0
    assert by_folder == run(capsys, "plan", "digits-gan")[1]
    (beside_results / "results" / "digits-gan").rename(beside_results / "kept")
    label = by_folder.split(" | ")[1]
    code, rows, _ = run(capsys, "plan", "kept", "--defense", label)
    assert code == 0
    assert [row for row in rows.splitlines() if " | " in row] == [
        row for row in by_folder.splitlines() if f" | {label} | " in row
    ]
    for option in (("--probe",), ("--detect", "3pp")):
        code, _, (line,) = run(capsys, "plan", "kept", *option)
        assert (code, f"{option[0]} needs the board of kept" in line) == (2, True)
    for command in ("plan", "status"):
        code, _, (line,) = run(capsys, command, "kept", "--defense", f"{label}x")
        assert (code, f"did you mean {label}?" in line) == (2, True)


def test_status_of_a_folder_without_its_board(beside_results, capsys):
    by_folder = run(capsys, "status", "results/digits-gan")
    by_board = run(capsys, "status", "digits-gan")
    assert by_folder[0] == by_board[0] == 0
    *rows, last = by_folder[1].splitlines()
    *same, end = by_board[1].splitlines()
    assert rows == same
    assert last.split(" cells")[0] == end.split(" cells")[0]
