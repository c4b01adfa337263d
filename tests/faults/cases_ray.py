"""Runs on a Ray cluster: the command, a worker or a node killed; nodes that lack data or differ; addresses."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boards
import numpy as np

from faults.catalogue import case
from faults.ground import Ground, Outcome, Told, finished, nothing_written
from faults.nodes import processes, wait_until
from faults.running import Running

_READS = """
import os
here = os.path.dirname(__file__)
os.environ.get("OMP_NUM_THREADS")  # is Ray's own on a node
os.listdir(here)  # has no folder there
assert open(os.path.join(here, "scale.txt")).read() == "1"
"""


def _run(ground: Ground, board: Path, out: Path, *more: object) -> Told:
    return ground.plainly(board, out, "--ray", ground.nodes().address, "--quiet", *more)


def _refused(told: Told, out: Path, *names: str) -> Outcome:
    assert len(told.stderr.splitlines()) == 1, told.stderr
    nothing_written(out)
    return Outcome(told, names)


def _cells(out: Path) -> int:
    return len(list(out.glob("parts/cell-*")))


def _signalled(ground: Ground, out: Path, sign: int) -> Told:
    """A command on the cluster that got a signal when three more cells were finished; it leaves no process."""
    before = _cells(out)
    running = Running(ground, out, "--ray", ground.nodes().address, stall=False)
    wait_until(lambda: _cells(out) >= before + 3)
    assert processes()
    os.kill(running.process.pid, sign)
    told = running.ended()
    wait_until(lambda: not processes())
    assert len(finished(out)) >= before + 3
    return told


@case(
    "SIGKILL, then Ctrl-C, of a command whose cells run on a Ray cluster, each when some are finished",
    "no process is left on the nodes, Ctrl-C exits with 130 and one line; the repeated command goes on",
)
def command(ground: Ground) -> Iterator[Outcome]:
    from bench.analysis.results import load_cells
    from bench.store.manifest import read_manifest

    out = ground.tmp / "out"
    yield Outcome(_signalled(ground, out, signal.SIGKILL), code=-signal.SIGKILL)
    kept = finished(out)
    told = _signalled(ground, out, signal.SIGINT)
    kept |= finished(out)
    yield Outcome(told, ("interrupted", "finished cells are kept"), 130, out, ground.base.board, kept)
    cells, runs = load_cells(out), {run["id"] for run in read_manifest(out)["runs"]}
    assert set(cells["status"]) == {"ok"}
    assert len(runs) == 3
    assert set(cells["run"]) <= runs
    assert len(set(kept.values())) == 2


@case("SIGTERM of such a command", "the same as Ctrl-C")
def terminated(ground: Ground) -> Outcome:
    out = ground.tmp / "out"
    told = _signalled(ground, out, signal.SIGTERM)
    assert len(told.problems()) == 1
    return Outcome(told, ("interrupted", "finished cells are kept"), 130, out, ground.base.board, finished(out))


@case(
    "a worker on a Ray cluster killed in the middle of a cell, and a node in the middle of another",
    "these cells are done by others, with the bits of one machine",
)
def worker_and_node(ground: Ground) -> Outcome:
    from bench.analysis.results import load_cells

    victims, out, local = (ground.tmp / name for name in ("victims", "out", "local"))
    victims.mkdir()
    board = ground.board("", (":slow", ":fatal"), ("seconds = {seconds}", f'folder = "{victims}"'))
    told = _run(ground, board, out)
    assert {p.name for p in victims.iterdir()} == {"worker", "node"}
    ground.nodes().mend()
    assert ground.run(board, local).code == 0
    for line in load_cells(out).to_dict("records"):
        assert str(ground.base.folder.parent) not in str(line["error"])
    return Outcome(told, code=0, folder=out, reference=local)


@case(
    "models that hang, and that take memory without end, in one cell on a Ray cluster",
    "these cells are stopped at the limits of time and memory and are errors; others are done",
)
def limits(ground: Ground) -> Iterator[Outcome]:
    for name, *limit in (("Hangs", "--time-limit", "2"), ("Leaks", "--memory", "1.5")):
        out = ground.copy()
        kept = finished(out)
        told = _run(ground, ground.defense(name), out, *limit, "--attack", "slow")
        errors = [(name, attack) for attack in ("slow", "autoattack:apgd-ce")]  # the latter did not run
        yield Outcome(told, (f"{name} | slow",), folder=out, kept=kept, errors=errors)


@case(
    "workers that take half a GPU each on a Ray cluster where one node has a GPU",
    "two of them share it at the same time, and none runs elsewhere",
)
def shared_gpu(ground: Ground) -> Outcome:
    from bench.analysis.results import load_cells
    from bench.board.load import load_board
    from bench.execution.options import Options, RayOptions
    from bench.execution.run_board import run_board

    nodes, calls, out = ground.nodes(), ground.tmp / "calls", ground.tmp / "out"
    node = nodes.add(num_cpus=3, num_gpus=1, FAULTS_CALLS=str(calls))  # of Ray's books alone: models run on CPUs
    half = RayOptions(nodes.address, gpus=0.5)
    try:
        run_board(load_board(ground.base.board), out, Options(attacks=("slow",), ray=half, quiet=True))
    finally:
        nodes.remove(node)
    told = [line.split() for line in calls.read_text().splitlines()]
    assert len(told) == (load_cells(out)["attack"] == "slow").sum()
    assert len({process for process, *_ in told}) == 2
    return Outcome(folder=out, board=ground.base.board, kept=finished(out))


def _own(folder: Path, data: str = "own.npz") -> Path:
    """A board on data of one's own, beside it."""
    from defenses.data.dataset import load_dataset

    folder.mkdir(exist_ok=True)
    digits = load_dataset("digits").select(range(60))
    np.savez(folder / data, x=digits.x.numpy(), y=digits.y.numpy(), num_classes=10)
    return boards.write_board(folder, boards.BOARD.replace('"digits"', f'"{data}"'))


@case(
    "data that are too large to go with a run, and that the nodes of a Ray cluster lack", "refused naming node and data"
)
def large_data(ground: Ground) -> Outcome:
    from bench.execution.workers.cluster import files

    board = _own(ground.tmp / "own")
    ground.monkeypatch.setenv("PUREBENCH_DATA", str(board.parent))
    ground.monkeypatch.setattr(files, "_SMALL", 0)
    told = _run(ground, board, ground.tmp / "out")
    assert re.search(r"node [\d.]+ of the Ray cluster: .*own.npz", told.stderr)
    return _refused(told, ground.tmp / "out", "own.npz")


@case(
    "own code, a file that it reads and small data, overwritten when a run on a Ray cluster has begun",
    "nodes have copies of their own; a repeated command asks no cluster, as all is done",
)
def overwritten(ground: Ground) -> Iterator[Outcome]:
    from bench.analysis.results import load_cells
    from bench.execution.workers.cluster import connect, files

    folder, out, local = (ground.tmp / name for name in ("own", "out", "local"))
    board, models, scale = _own(folder), folder / "models.py", folder / "scale.txt"
    (folder / "empty").mkdir()
    (folder / ".gitignore").write_text("*.txt\n")  # is about other copies
    own = {models: f"{models.read_text()}\n{_READS}", scale: "1"}

    def write(texts: Mapping[Path, str]) -> None:
        for path, text in texts.items():
            path.write_text(text)

    def write_and_spoil(found: dict[str, Path], package: Path) -> None:
        files.write_package(found, package)
        write({models: f"{own[models]}\nraise RuntimeError('not of the node')\n", scale: "not of the node"})

    write(own)
    ground.monkeypatch.setenv("PUREBENCH_DATA", str(folder))
    ground.monkeypatch.setenv("OMP_NUM_THREADS", "3")
    ground.monkeypatch.setattr(connect, "write_package", write_and_spoil)
    told = _run(ground, board, out)
    assert models.read_text() != own[models]
    write(own)
    assert set(load_cells(out)["dataset"]) == {"own.npz"}
    assert ground.run(board, local).code == 0
    yield Outcome(told, code=0)
    kept = finished(out)
    again = ground.plainly(board, out, "--ray", "127.0.0.1:9", "--quiet")
    yield Outcome(again, code=0, folder=out, kept=kept, reference=local)


@case(
    "a node without the large data that joins a Ray cluster when its nodes have been checked, and one of these is lost",
    "it is left out, in one line that names it; the others do all cells",
)
def late_node(ground: Ground) -> Outcome:
    from bench.execution.workers.cluster import connect, files

    nodes, out, local, late = ground.nodes(), ground.tmp / "out", ground.tmp / "local", []
    board, examined = _own(nodes.data, "large.npz"), connect._examined

    def examine_and_change(*given: Any) -> Any:
        machines = examined(*given)
        nodes.remove(nodes.added[0])
        late.append(nodes.add(PUREBENCH_DATA=str(ground.tmp)))
        return machines

    ground.monkeypatch.setenv("PUREBENCH_DATA", str(nodes.data))
    ground.monkeypatch.setattr(files, "_SMALL", 0)
    ground.monkeypatch.setattr(connect, "_examined", examine_and_change)
    try:
        told = _run(ground, board, out)
    finally:
        for node in late:
            nodes.remove(node)
            nodes.add()
    assert len(told.stderr.splitlines()) == 1, told.stderr
    assert ground.run(board, local).code == 0
    return Outcome(told, ("of the Ray cluster", "large.npz", "the node is left out"), 0, out, reference=local)


@case("a node of a Ray cluster with another version of purebench, or other code of the same", "refused naming the node")
def other_code(ground: Ground) -> Iterator[Outcome]:
    (version := ground.tmp / "version").mkdir()
    (about := version / "purebench-0.0.7.dist-info").mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: purebench\nVersion: 0.0.7\n")
    (code := ground.tmp / "code").mkdir()
    for name in ("defenses", "leaderboards"):
        (code / name).symlink_to(boards.ROOT / name)
    shutil.copytree(boards.ROOT / "bench", code / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    with (code / "bench" / "spec" / "threat.py").open("a") as file:
        file.write("\n# another\n")
    nodes = ground.nodes()
    for folder, words in ((version, "of the Ray cluster: it has purebench 0.0.7, the driver"), (code, "its purebench")):
        node = nodes.add(PYTHONPATH=str(folder))
        try:
            told = _run(ground, ground.base.board, ground.tmp / "out")
        finally:
            nodes.remove(node)
        yield _refused(told, ground.tmp / "out", "of the Ray cluster", words)


@case("an address of a Ray cluster where nothing answers, or nothing that says anything", "refused naming it")
def addresses(ground: Ground) -> Iterator[Outcome]:
    from bench.execution.workers.cluster import connect

    out = ground.tmp / "out"
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, and says nothing
    ground.monkeypatch.setattr(connect, "_REACH_SECONDS", 0.2)
    for address, names in (
        (f"127.0.0.1:{silent.getsockname()[1]}", ("(timed out); start it with `ray start --head`",)),
        ("127.0.0.1:9", ("cannot reach Ray at 127.0.0.1:9 (Connection refused)",)),
    ):
        told = ground.plainly(ground.base.board, out, "--quiet", "--ray", address)
        yield _refused(told, out, *names)


@case("options that a run on a Ray cluster cannot have", "refused naming them")
def options(ground: Ground) -> Iterator[Outcome]:
    out = ground.tmp / "out"
    for words, names in (
        (["--workers", "0"], "--workers 0 runs cells in this process"),
        (["--device", "cuda:1"], "Ray gives each worker its GPU"),
        (["--gpus", "0.5"], "--gpus without an accelerator"),
    ):
        told = ground.plainly(ground.base.board, out, "--quiet", "--ray", "auto", *words)
        yield _refused(told, out, names)


@case("a run on a Ray cluster without Ray", "refused with what to install")
def not_installed(ground: Ground) -> Outcome:
    ground.monkeypatch.setitem(sys.modules, "ray", None)
    told = ground.plainly(ground.base.board, ground.tmp / "out", "--quiet", "--ray", "auto")
    assert told.stderr.endswith('need Ray: pip install "purebench[ray]"\n')
    return _refused(told, ground.tmp / "out")
