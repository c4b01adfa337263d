"""Test processes that share a board: reports, retries, and faults and deaths of workers."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from boards import BOARD, MODELS, ROOT, write_board

import bench.execution.run_board
import bench.execution.workers.session
import bench.execution.workers.worker
from bench.analysis.results import load_cells
from bench.board.load import load_board
from bench.cli.main import main
from bench.execution.evaluations import evaluations
from bench.execution.finish_cell import CellReport, finish
from bench.execution.options import Options
from bench.execution.progress import Progress
from bench.execution.run_board import run_board
from bench.execution.workers.messages import WorkerFailed
from bench.execution.workers.process import LocalProcesses
from bench.execution.workers.session import WorkerSettings
from bench.spec.cell import Cell
from defenses.utils.errors import UserError
from defenses.utils.text import human_time

FLAKY = """

def flaky(view, x, y, **_):
    \"\"\"An attack that spoils an image, fails or works, as the environment says.\"\"\"
    import ctypes
    getenv = ctypes.CDLL(None).getenv  # past purebench, for which a variable that is read counts among the sources
    getenv.restype = ctypes.c_char_p
    mode = getenv(b"FLAKY").decode()
    if mode == "raises":
        raise RuntimeError("down")
    out = x.clone()
    if mode == "spoils":
        out[0] = float("nan")
    return out
"""


def run(path: Path, out: Path, **options) -> list[str]:
    return run_board(load_board(path), out, Options(quiet=True, **options))


def light_board(folder: Path) -> Path:
    """Write a board with one attack, which an environment variable controls."""
    text = BOARD.replace(":slow", ":flaky").replace("{{ seconds = {seconds} }}", "{{}}")
    path = write_board(folder, text[: text.rindex("[[attack]]")])
    (folder / "models.py").write_text(MODELS + FLAKY)
    return path


def slow_cells(tmp_path) -> list[Cell]:
    return [c for c in load_board(write_board(tmp_path)).cells() if c.attack.label == "slow"]


def test_retries_are_of_chosen_cells_and_of_single_images(tmp_path, monkeypatch):
    path, out = light_board(tmp_path), tmp_path / "out"
    monkeypatch.setenv("FLAKY", "spoils")
    assert len(run(path, out)) == 6
    before = load_cells(out).set_index("key")
    assert len(list((out / "parts").iterdir())) == 2  # images of these cells were judged: they are merged
    monkeypatch.setenv("FLAKY", "raises")
    assert len(run(path, out, retry_errors=True, defenses=("linear",))) == 6
    assert load_cells(out).set_index("key")["run"].equals(before["run"])  # no failure replaces them
    monkeypatch.setenv("FLAKY", "works")
    errors = run(path, out, retry_errors=True, defenses=("linear",))
    assert len(errors) == 3
    assert all(e.startswith("noisy") for e in errors)
    after = load_cells(out).set_index("key")
    again = after["run"] != before["run"]
    assert set(after[again]["defense"]) == {"linear"}
    assert set(after[again]["attack"]) == {"slow"}
    assert again.sum() == 3
    assert len(list((out / "parts").iterdir())) == 2
    assert run(path, out, retry_errors=True) == []


def test_failed_cells_are_retried_where_chosen(tmp_path, monkeypatch):
    path, out = light_board(tmp_path), tmp_path / "out"
    monkeypatch.setenv("FLAKY", "raises")
    assert len(run(path, out)) == 6
    monkeypatch.setenv("FLAKY", "works")
    assert len(run(path, out, retry_errors=True, defenses=("linear",))) == 3
    cells = load_cells(out)
    assert set(cells[cells["status"] == "error"]["defense"]) == {"noisy"}
    assert (cells["status"] == "missing").sum() == 0


def test_a_record_that_another_process_redid_counts(tmp_path):
    cell = slow_cells(tmp_path)[0]

    class Elsewhere:
        def cell_record(self, key):
            return {"key": key, "run": "other", "status": "error", "error": "RuntimeError: down"}

    old = {"key": cell.key, "run": "old", "status": "error", "error": "x"}
    assert finish(Elsewhere(), cell, None, "mine", old) == CellReport(cell.key, "error", None, "RuntimeError: down")


def test_cells_that_were_not_finished_are_an_error(tmp_path, monkeypatch):
    path = write_board(tmp_path)
    monkeypatch.setattr(bench.execution.run_board, "run_cells", lambda *_, **__: None)
    with pytest.raises(UserError, match="24 cells were not finished; repeat the command"):
        run(path, tmp_path / "out", workers=0)


def test_a_fault_in_a_worker_is_one_line(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise KeyError("oops")

    monkeypatch.setattr(bench.execution.workers.session, "CellRunner", broken)
    monkeypatch.setattr(bench.execution.workers.worker, "_prepare", lambda *_: None)
    path = write_board(tmp_path)
    parent_end, worker_end = multiprocessing.Pipe()
    settings = WorkerSettings(load_board(path).images, 1, tmp_path / "out", Options(), "run")
    bench.execution.workers.worker.serve(settings, worker_end, tmp_path / "traceback", {})
    failure = parent_end.recv().error
    assert isinstance(failure, WorkerFailed)
    assert "KeyError" in capsys.readouterr().err

    def board(*_):
        raise failure

    monkeypatch.setattr(bench.execution.run_board, "run_board", board)
    assert main(["run", str(path), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "purebench: a worker failed: KeyError: 'oops'\n"


def test_a_start_leaves_the_main_module_as_it_is(tmp_path, monkeypatch):
    main, seen = vars(sys.modules["__main__"]), []
    before = dict(main)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", lambda _: seen.append(dict(main)))
    LocalProcesses(
        WorkerSettings(load_board(write_board(tmp_path)).images, 1, tmp_path / "out", Options(), "run"), tmp_path
    ).start()
    assert seen == [before]


def children(pid: int) -> set[int]:
    try:
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    path, out = write_board(tmp_path, seconds=60.0), tmp_path / "out"
    command = [sys.executable, "-m", "bench", "run", str(path), "--out", str(out), "--quiet", "--workers", "2"]
    parent = subprocess.Popen([*command, "--defense", "linear"], cwd=ROOT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and sum(p.stem != "manifest" for p in (out / ".locks").glob("*.lock")) < 2:
        time.sleep(0.1)
    workers = children(parent.pid)
    assert len(workers) >= 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(running, workers)):
        time.sleep(0.1)
    left = [p for p in workers if running(p)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_another_board_in_the_folder_is_refused(tmp_path):
    path, out = light_board(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text(json.dumps({"board": "large"}))
    with pytest.raises(UserError, match=r'results of the board "large", not of "small".*--out'):
        run(path, out)
    assert not (out / "plan.jsonl").exists()


def test_progress_forecasts_from_similar_cells(tmp_path):
    cells = slow_cells(tmp_path)
    linear, noisy = ([c for c in cells if c.defense.label == label] for label in ("linear", "noisy"))
    progress = Progress(linear, workers=2, quiet=True)
    progress.finished(CellReport(linear[0].key, "ok", 10.0, None))
    assert progress.eta() == pytest.approx(10.0 * (len(linear) - 1) / 2)
    progress = Progress([linear[0], *noisy], workers=3, quiet=True)
    progress.finished(CellReport(linear[0].key, "ok", 10.0, None))
    assert progress.eta() == pytest.approx(1.5 * 10.0 * evaluations(noisy[0]) / evaluations(linear[0]))
    assert human_time(30) == "30 s"
    assert human_time(600) == "10 min"
    assert human_time(3 * 3600 + 300) == "3 h 05 min"
    assert time.perf_counter() >= progress.begin


def test_cells_of_other_processes_teach_no_forecast(tmp_path, capsys):
    cells = [c for c in slow_cells(tmp_path) if c.defense.label == "linear"]
    progress = Progress(cells, workers=1)
    progress.finished(CellReport(cells[0].key, "error", None, "RuntimeError: down"))
    assert "done by another process | error: RuntimeError: down" in capsys.readouterr().err
    progress.finished(CellReport(cells[1].key, "ok", 10.0, None))
    assert progress.eta() == pytest.approx(10.0 * (len(cells) - 2))


CUT_SHORT = """
import multiprocessing, os
from multiprocessing import forkserver
from bench.execution.workers.process import _PRELOAD
if __name__ == "__main__":
    multiprocessing.set_forkserver_preload([name for name in _PRELOAD if name.endswith("start_up")])
    for part in ("", "80059510"):  # nothing, and the beginning of a message
        sentinel, pipe = forkserver.connect_to_new_process([])
        os.write(pipe, bytes.fromhex(part))
        os.close(pipe)
        forkserver.read_signed(sentinel)
        print("ended with", forkserver.read_signed(sentinel))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked from a server on Linux alone")
def test_a_worker_whose_start_is_cut_short_prints_no_traceback(tmp_path):
    (tmp_path / "start.py").write_text(CUT_SHORT)
    command = [sys.executable, str(tmp_path / "start.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT, check=True)
    assert (done.stdout, done.stderr) == ("ended with 1\n" * 2, "")


def test_other_errors_of_a_worker_that_starts_are_printed(capsys):
    from bench.execution.workers.start_up import report

    report(EOFError, EOFError("of something else"), None)
    assert "EOFError: of something else" in capsys.readouterr().err
