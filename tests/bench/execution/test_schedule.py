"""Test limits of workers, deaths of workers, the order of cells, and interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from boards import ROOT, purebench_here
from trouble import LIMIT, board

from bench.analysis.results import load_cells
from bench.board.load import load_board
from bench.board.schema import duration
from bench.execution.forecast.estimates import makespan
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.execution.workers.limits import default_memory
from bench.execution.workers.schedule import Schedule
from bench.execution.workers.session import _share_accelerator
from defenses.utils.errors import UserError
from defenses.utils.memory import available_memory


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """Return (board, folder, cells by attack) of one run with two workers."""
    folder = tmp_path_factory.mktemp("troubled")
    names = ["sleeps", "hangs", "grows", "maps", "leaves_python", "is_killed", "dies_once", "exits", "works"]
    path = board(folder, names)
    options = Options(quiet=True, workers=2, time_limit=LIMIT, memory=1.0)
    errors = run_board(load_board(path), folder / "out", options)
    assert len(errors) == 7
    return path, folder / "out", load_cells(folder / "out").set_index("attack")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("sleeps", "the cell took longer than 12 s (--time-limit)"),
        ("hangs", "the cell took longer than 12 s (--time-limit)"),
        ("grows", "RuntimeError: "),
        ("maps", "the worker took more than 1 GiB of memory (--memory)"),
        ("leaves_python", "the worker died (exit code 7) twice at this cell"),
        ("is_killed", "the worker died (signal 9) twice at this cell"),
        ("exits", "SystemExit: 3"),
    ],
)
def test_what_stops_a_cell_is_an_error_record(troubled, attack, words):
    cell = troubled[2].loc[attack]
    assert cell["status"] == "error"
    assert cell["error"].startswith(words)
    if attack == "grows":
        assert cell["error"].endswith("a worker may hold 1 GiB (--memory)")


def test_other_cells_go_on(troubled):
    cells = troubled[2]
    assert set(cells.loc[["works", "dies_once", "none", "uniform"], "status"]) == {"ok"}


def test_a_stopped_cell_tells_where_it_was(troubled):
    lines = [json.loads(p.read_text()) for p in (troubled[1] / "parts").glob("cell-*/cells.jsonl")]
    traces = {line["attack"]: line["traceback"] for line in lines}
    assert "in sleeps" in traces["sleeps"]
    assert "in hangs" in traces["hangs"]
    assert traces["is_killed"] is None


def test_stopped_cells_are_no_successes_and_wait_for_retry_errors(troubled):
    path, out, before = troubled
    text = purebench_here("table", out).stdout
    assert "*" in text  # the worst case is incomplete
    assert len(run_board(load_board(path), out, Options(quiet=True))) == 7
    assert load_cells(out).set_index("attack")["run"].equals(before["run"])


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of Linux")
def test_a_batch_too_large_for_a_worker_is_halved(tmp_path):
    path = board(tmp_path, ["asks"], defense="Wide")
    assert run_board(load_board(path), tmp_path / "out", Options(quiet=True, memory=1.0)) == []
    notes = load_cells(tmp_path / "out").set_index("attack")["notes"]
    assert notes["asks"][0].startswith("ran with ")
    assert len(notes["none"]) == 1
    assert notes["none"][0].startswith("was judged with ")
    assert all(int(text.split(" with ")[1].split()[0]) < 10 for text in notes["asks"])


def test_sys_exit_in_this_process_is_an_error_record(tmp_path):
    errors = run_board(load_board(board(tmp_path, ["exits"])), tmp_path / "out", Options(quiet=True, workers=0))
    assert errors == ["model | exits | exact | images 0-9: SystemExit: 3"]


def test_by_default_a_process_that_ends_is_an_error_record(tmp_path):
    errors = run_board(load_board(board(tmp_path, ["leaves_python"])), tmp_path / "out", Options(quiet=True))
    assert errors == ["model | leaves_python | exact | images 0-9: the worker died (exit code 7) twice at this cell"]
    assert load_cells(tmp_path / "out").set_index("attack")["status"]["none"] == "ok"


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_that_runs_a_board_needs_the_guard(tmp_path, guarded):
    path, script, out = board(tmp_path, ["works"]), tmp_path / "script.py", tmp_path / "out"
    call = f"assert run_board(load_board({str(path)!r}), Path({str(out)!r}), Options(quiet=True)) == []\n"
    script.write_text(
        "from pathlib import Path\n"
        "from bench.board.load import load_board\n"
        "from bench.execution.options import Options\n"
        "from bench.execution.run_board import run_board\n"
        + (f'if __name__ == "__main__":\n    {call}' if guarded else call)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == (0 if guarded else 1), done.stderr
    assert out.exists() is guarded
    if guarded:
        assert done.stderr.count("\n") == 1  # a note on own models
    else:
        assert 'needs `if __name__ == "__main__":` around that' in done.stderr.splitlines()[-1]


def test_a_process_without_workers_has_no_limits(tmp_path):
    path = board(tmp_path, ["works"])
    with pytest.raises(UserError, match=r"workers 0\) have no limits"):
        run_board(load_board(path), tmp_path / "out", Options(quiet=True, workers=0, time_limit=9.0))
    path.write_text('time_limit = "2min"\n' + path.read_text())
    with pytest.raises(UserError, match=r"workers 0\) have no limits"):
        run_board(load_board(path), tmp_path / "out", Options(quiet=True, workers=0))
    assert [p for p in tmp_path.rglob("out/**/*") if p.is_file()] == []


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_model_that_is_refused_leaves_nothing(tmp_path, workers):
    loaded = load_board(board(tmp_path, ["works"], defense="Trains"))
    with pytest.raises(UserError, match="mode"):
        run_board(loaded, tmp_path / "out", Options(quiet=True, workers=workers))
    assert [p for p in tmp_path.rglob("out/**/*") if p.is_file()] == []


@pytest.mark.parametrize(("workers", "shares"), [(1, []), (2, [0.475])])
def test_workers_share_an_accelerator(monkeypatch, workers, shares):
    calls = []
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", lambda share, index: calls.append((share, index)))
    _share_accelerator(Options(workers=workers, device="cuda:1"))
    _share_accelerator(Options(workers=workers, device="cpu"))
    assert calls == [(share, 1) for share in shares]


def test_a_model_that_kills_its_checker_stops_the_run(tmp_path):
    path = board(tmp_path, ["works"], defense="Fatal")
    loaded = load_board(path)
    with pytest.raises(UserError, match=r"model: the worker died \(exit code 5\) twice while the model was checked"):
        run_board(loaded, tmp_path / "out", Options(quiet=True, workers=2))
    assert [p for p in tmp_path.rglob("out/**/*") if p.is_file()] == []


def test_limits_of_a_model_in_memory_are_refused(tmp_path):
    loaded = load_board(board(tmp_path, ["works"]))
    with pytest.raises(UserError, match="a model in memory runs in this process and without limits"):
        run_board(loaded, tmp_path / "out", Options(quiet=True, time_limit=9.0, loaded={"model": object()}))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_ctrl_c_ends_promptly_and_leaves_nothing_behind(tmp_path):
    path, out = board(tmp_path, ["sleeps"]), tmp_path / "out"
    command = [sys.executable, "-m", "bench", "run", str(path), "--out", str(out), "--workers", "2"]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list((out / "parts").glob("cell-*"))) < 2:  # "sleeps" is all that is left
        time.sleep(0.05)
    workers = psutil.Process(run.pid).children(recursive=True)
    begin = time.monotonic()
    for _ in range(2):  # as a terminal does, twice
        os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.05)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 130
    assert time.monotonic() - begin < 5
    assert "Traceback" not in err
    assert "interrupted; finished cells are kept" in err
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    assert not list((out / "parts").glob(".*"))
    assert {c["status"] for c in load_cells(out).to_dict("records")} == {"ok", "missing"}


def test_the_longest_cells_come_first(tmp_path):
    cells = load_board(board(tmp_path, ["works", "sleeps", "grows"])).cells()
    seconds = {"works": 2.0, "grows": 9.0, "none": 1.0}
    schedule = Schedule(cells, lambda c: seconds.get(c.attack.label))
    order = []
    while (cell := schedule.pop()) is not None:
        order.append(cell.attack.label)
    assert order == ["sleeps", "grows", "works", "none", "uniform"]  # unknown ones first, but for null attacks
    schedule = Schedule(cells, lambda c: seconds.get(c.attack.label))
    schedule.learn("model", 17 * 3.0)  # three seconds an image
    order = [schedule.pop().attack.label for _ in cells]
    assert order == ["sleeps", "uniform", "grows", "works", "none"]


def test_choices_among_many_pairs_cost_little_and_follow_what_is_learnt():
    names = [f"a{i}" for i in range(1000)]
    cells = [
        SimpleNamespace(
            defense=SimpleNamespace(title="model"), attack=SimpleNamespace(label=name, is_null=False),
            view_label="exact", threat="Linf 1/5", block=block,
        )
        for name in names for block in range(3)
    ]  # fmt: skip
    seconds, asked = {name: float(i) for i, name in enumerate(names)}, []
    schedule = Schedule(cells, lambda c: (asked.append(c), seconds[c.attack.label])[1])
    assert [schedule.pop().attack.label for _ in range(4)] == ["a999"] * 3 + ["a998"]
    seconds["a998"] = 0.5  # shorter than was thought
    seconds["a0"] = 5000.0
    assert schedule.pop().attack.label == "a997"
    assert "a0" in [schedule.pop().attack.label for _ in range(16)]
    rest = sum(schedule.pop() is not None for _ in range(len(schedule)))
    assert (rest, schedule.pop()) == (len(cells) - 21, None)
    assert len(asked) < 70 * len(cells)


def test_makespan_of_several_workers():
    assert makespan([3, 3, 2, 2, 2], 2) == 7  # longest first; the best would be 6
    assert makespan([3, 3, 2, 2, 2], 1) == 12
    assert makespan([3, 3, 2, 2, 2], 0) == 12  # in this process
    assert makespan([], 2) == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("600", 600), (90, 90), ("90s", 90), ("10 min", 600), ("1.5h", 5400), ("1e3", 1000)]
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3", "ten", "5 weeks", "1.2.3", "inf", "1e", "1e999"])
def test_bad_durations(text):
    with pytest.raises(UserError, match="the time limit is"):
        duration(text)


def test_a_board_may_have_a_time_limit_that_changes_no_key(tmp_path):
    path = board(tmp_path, ["works"])
    plain = load_board(path)
    path.write_text('time_limit = "2min"\n' + path.read_text())
    limited = load_board(path)
    assert limited.time_limit == 120
    assert [c.key for c in limited.cells()] == [c.key for c in plain.cells()]
    path.write_text(path.read_text().replace("2min", "soon"))
    with pytest.raises(UserError, match="the time limit is 'soon'"):
        load_board(path)


def test_workers_share_what_is_available():
    assert 0 < available_memory() <= psutil.virtual_memory().total
    assert default_memory(1) == pytest.approx(2 * default_memory(2), rel=0.2) or default_memory(2) == 1.0


@pytest.mark.parametrize("flag", [["--workers", "-1"], ["--time-limit", "soon"], ["--memory", "-1"]])
def test_bad_limits_are_refused(flag, capsys):
    with pytest.raises(SystemExit) as error:
        purebench_here("run", "quickstart", *flag)
    assert error.value.code == 2
