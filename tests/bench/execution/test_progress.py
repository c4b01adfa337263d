"""Test what a run says while it goes, with a clock that the test moves."""

import heapq
import io
import re

import pytest
from boards import ROOT, write_board

from bench.analysis.results import load_cells
from bench.board.load import load_board
from bench.execution.display import Display, bar
from bench.execution.evaluations import attack_evaluations, evaluations
from bench.execution.finish_cell import CellReport
from bench.execution.options import Options
from bench.execution.pace import paced, watch_of
from bench.execution.progress import Progress
from bench.execution.workers.schedule import Schedule
from bench.execution.workers.session import Session, WorkerSettings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(cells, stream=None, **options):
    """The progress of cells, what it writes, and its clock."""
    clock, stream = Clock(), io.StringIO() if stream is None else stream
    return Progress(cells, display=Display(stream, clock), clock=clock, **options), stream, clock


def small(tmp_path):
    return load_board(write_board(tmp_path)).cells()


def test_lines_of_a_run_elsewhere_than_on_a_terminal(tmp_path):
    cells = small(tmp_path)
    progress, stream, clock = told(cells, workers=1, certificates=1)
    clock.now = 2.0
    progress.prepared("check", "linear")
    clock.now = 4.0
    progress.prepared("check", "noisy")
    clock.now = 9.0
    progress.prepared("certificate", "linear")
    first = cells[0]
    progress.advanced(first.key, 0.0)
    for clock.now in range(10, 190):
        progress.advanced(first.key, clock.now / 200)
    progress.finished(CellReport(first.key, "ok", 180.0, None))
    assert stream.getvalue().splitlines()[:2] == ["2 models checked in 4 s", "1 gradient certificate measured in 5 s"]
    later = stream.getvalue().splitlines()[2:]
    shares = [re.fullmatch(r"\[0/24\] ETA unknown \| linear \| none (\[#*\.*\]) (\d+)%", x)[2] for x in later[:-1]]
    assert shares == ["34", "64", "94"]  # a line a minute
    assert later[-1].startswith("[1/24] linear | none | deployed | images 0-19 | 3 min | ETA ")


def test_the_last_line_of_a_terminal_is_written_anew(tmp_path):
    cells = small(tmp_path)
    progress, stream, clock = told(cells, Terminal(), workers=1)
    for clock.now in (1.0, 1.05, 1.1, 1.3):
        progress.advanced(cells[0].key, clock.now / 2)
    progress.finished(CellReport(cells[0].key, "ok", 2.0, None))
    assert stream.getvalue().count("\r") == 3  # two of four states, and their end
    assert stream.getvalue().count("\n") == 1
    assert "linear | none [######....] 65%\x1b[K\r\x1b[K[1/24] linear" in stream.getvalue()
    progress.prepared("check", "linear")
    assert not stream.getvalue().endswith("linear")  # within a fifth of a second
    clock.now = 9.0
    progress.prepared("check", "noisy")
    assert stream.getvalue().endswith("2 models checked in 9 s\n")


def test_quiet_is_quiet(tmp_path):
    cells = small(tmp_path)
    progress, stream, clock = told(cells, workers=1, quiet=True)
    progress.prepared("check", "linear")
    progress.prepared("check", "noisy")
    clock.now = 100.0
    progress.advanced(cells[0].key, 0.5)
    progress.finished(CellReport(cells[0].key, "ok", 1.0, None))
    assert stream.getvalue() == ""


def test_a_broken_stream_is_no_fault_of_an_attack(tmp_path):
    class Broken(Terminal):
        def write(self, text):
            raise BrokenPipeError

    cells = small(tmp_path)
    progress, _, clock = told(cells, Broken(), workers=1)
    clock.now = 10.0
    progress.advanced(cells[0].key, 0.5)
    with pytest.raises(BrokenPipeError):
        progress.finished(CellReport(cells[0].key, "ok", 1.0, None))


def test_a_bar():
    assert [bar(share) for share in (0.0, 0.45, 1.0)] == ["[..........] 0%", "[####......] 45%", "[##########] 100%"]


def test_shares_of_a_budget_are_reported_once_a_second():
    clock, shares = Clock(), []
    watch = paced(1000, shares.append, 0.5, clock)
    for step in range(40):
        clock.now = step / 10
        watch(100 * (step + 1))
    assert shares == [0.495, 0.495, 0.495]
    clock.now = 4.5
    watch(400)
    assert shares[-1] == pytest.approx(0.2)


def test_the_budget_is_that_of_all_images(tmp_path):
    cells = small(tmp_path)
    apgd = next(c for c in cells if c.attack.label == "autoattack:apgd-ce" and c.defense.label == "noisy")
    whole = attack_evaluations(apgd) / evaluations(apgd)
    assert 0 < whole < 1
    assert watch_of(apgd, print) is not None
    assert watch_of(next(c for c in cells if c.attack.is_null), print) is None
    assert watch_of(next(c for c in cells if c.attack.label == "slow"), print) is None  # nothing tells its steps


@pytest.fixture(scope="module", params=["digits-linf", "digits-defenses"])
def committed(request):
    """Cells of a committed run, and their seconds by key."""
    lines = load_cells(ROOT / "results" / request.param).set_index("key")
    seconds = (lines["seconds_attack"] + lines["seconds_verdict"])[lines["status"] == "ok"].to_dict()
    return [cell for cell in load_board(request.param).cells() if cell.key in seconds], seconds


def simulated(cells, seconds, workers):
    """(remaining, ETA) after each cell of a run by a schedule."""
    progress, _, clock = told(cells, workers=workers, quiet=True)
    schedule = Schedule(cells, progress.durations.expected)
    for cell in cells:  # the check of a defense is as slow as a verdict on it
        if cell.attack.is_null:
            schedule.learn(cell.defense.title, seconds[cell.key])
    running, seen = [], []
    while progress.pending:
        while len(running) < workers and len(schedule):
            cell = schedule.pop()
            progress.advanced(cell.key, 0.0)
            heapq.heappush(running, (clock.now + seconds[cell.key], cell.key))
        clock.now, key = heapq.heappop(running)
        progress.finished(CellReport(key, "ok", seconds[key], None))
        seen.append((clock.now, progress.eta()))
    return [(clock.now - now, eta) for now, eta in seen]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_eta_of_a_run_never_grows_and_is_about_right(committed, workers):
    seen = simulated(*committed, workers)
    etas = [eta for _, eta in seen]
    assert etas == sorted(etas, reverse=True)
    assert etas[-1] == 0
    whole = seen[0][0]
    late = [(left, eta) for left, eta in seen if 0.1 * whole < left < 0.9 * whole]
    within = sum(left / 2 < eta < 4 * left for left, eta in late) / len(late)
    assert within > 0.85


def test_the_eta_stands_still_where_cells_take_longer(tmp_path):
    cells = [c for c in small(tmp_path) if c.attack.label == "slow" and c.defense.label == "linear"]
    progress, _, clock = told(cells, workers=1, quiet=True)
    assert progress.eta() is None
    progress.finished(CellReport(cells[0].key, "ok", 10.0, None))
    progress.advanced(cells[1].key, 0.0)
    assert progress.eta() == 20.0
    clock.now = 5.0
    assert progress.eta() == 15.0
    clock.now = 60.0
    assert progress.eta() == 10.0  # the running cell should have ended
    progress.finished(CellReport(cells[1].key, "ok", 60.0, None))
    assert progress.eta() == 10.0  # 35 by the mean of both, and no more than was said
    progress.finished(CellReport(cells[2].key, "ok", 60.0, None))
    assert progress.eta() == 0.0


def test_an_eta_that_was_too_short_is_told_as_a_lower_bound(tmp_path):
    cells = [c for c in small(tmp_path) if c.attack.label == "slow" and c.defense.label == "linear"]
    progress, stream, clock = told(cells, workers=1)
    progress.finished(CellReport(cells[0].key, "ok", 10.0, None))
    clock.now = 310.0
    progress.finished(CellReport(cells[1].key, "ok", 300.0, None))
    assert [line.rpartition(" | ")[2] for line in stream.getvalue().splitlines()] == ["ETA 20 s", "ETA over 20 s"]


def test_the_eta_of_many_cells_is_made_seldom(tmp_path, monkeypatch):
    cells = [c for c in small(tmp_path) if c.attack.label == "slow" and c.defense.label == "linear"]
    progress, _, clock = told(cells, workers=1, quiet=True)
    progress.finished(CellReport(cells[0].key, "ok", 10.0, None))
    made = []

    def slow(*_):
        clock.now += 1.0
        made.append(clock.now)
        return 20.0

    monkeypatch.setattr("bench.execution.progress.makespan", slow)
    assert progress.eta() == 20.0
    for _ in range(18):
        clock.now += 1.0
        assert progress.eta() == 20.0
    assert len(made) == 1
    clock.now += 1.0
    progress.eta()
    assert len(made) == 2


def test_a_first_cell_has_an_eta_by_its_share(tmp_path):
    cells = [c for c in small(tmp_path) if c.attack.label == "slow" and c.defense.label == "linear"][:1]
    progress, _, clock = told(cells, workers=1, quiet=True)
    progress.advanced(cells[0].key, 0.0)
    clock.now = 10.0
    progress.advanced(cells[0].key, 0.25)
    assert progress.eta() == pytest.approx(30.0)


def test_a_worker_tells_how_far_its_cell_is(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.execution.pace._APART", 0.0)
    board = load_board(write_board(tmp_path))
    cell = next(c for c in board.cells() if c.attack.label == "autoattack:apgd-ce" and c.defense.label == "linear")
    sent = []
    session = Session(WorkerSettings(board.images, 1, tmp_path / "out", Options(), "run"), sent.append)
    assert session.result(cell).line["status"] == "ok"
    shares = [message.share for message in sent]
    assert {message.key for message in sent} == {cell.key}
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert 0.4 < shares[-1] < 1.0  # images leave the attack early

    def gone(_):
        raise BrokenPipeError

    session.send = gone
    assert session.result(cell).line["status"] == "ok"  # the death of the pool is no error of the attack
