"""Test runs on a Ray cluster of three nodes: the same bits, lost workers, nodes and drivers, and nodes that differ."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from boards import BOARD, MODELS, ROOT, write_board
from faults.sameness import same

from bench.analysis.results import load_cells
from bench.board.load import load_board
from bench.cli.main import main
from bench.execution.options import Options, RayOptions
from bench.execution.run_board import run_board
from bench.execution.workers.cluster import connect, files
from bench.execution.workers.cluster.connect import check_ray
from bench.store.manifest import read_manifest
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason='needs Ray: pip install "purebench[ray]"'),
]

NODE = {"num_cpus": 1, "memory": 3 << 30, "object_store_memory": 100_000_000}
READS = """
import os
here = os.path.dirname(__file__)
os.environ.get("OMP_NUM_THREADS")  # is Ray's own on a node
os.listdir(here)  # has no folder there
assert open(os.path.join(here, "scale.txt")).read() == "1"
"""
FATAL = """

def fatal(view, x, y, *, threat, folder, **_):
    \"\"\"A sign step; the first call ends its process, and the second its node.\"\"\"
    import os
    import time
    import psutil

    for victim in ("worker", "node"):
        try:
            os.close(os.open(os.path.join(folder, victim), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        above = psutil.Process().parents()
        (psutil.Process() if victim == "worker" else next(p for p in above if p.name() == "raylet")).kill()
        time.sleep(100)
    return slow(view, x, y, threat=threat, seconds=0.0)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SimpleNamespace]:
    """A head without workers, and two nodes with one each."""
    check_ray()  # before Ray is imported
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(**NODE)
    yield cluster
    cluster.shutdown()


def run_on(cluster, path: Path, out: Path, **options) -> list[str]:
    return run_board(load_board(path), out, Options(quiet=True, ray=RayOptions(cluster.address), **options))


def fatal_board(folder: Path) -> Path:
    """Write a board one of whose attacks ends its process, and then its node."""
    text = BOARD.replace(":slow", ":fatal").replace("seconds = {seconds}", f'folder = "{folder}/victims"')
    path = write_board(folder, text)
    (folder / "models.py").write_text(MODELS + FATAL)
    (folder / "victims").mkdir()
    return path


def processes() -> set[int]:
    """The processes that workers on Ray's nodes run in: those below a raylet that are no worker of Ray's own."""
    raylets = [p for p in psutil.process_iter(["name"]) if p.info["name"] == "raylet"]
    found = set()
    for raylet in raylets:
        try:
            for below in raylet.children(recursive=True):
                if "multiprocessing" in " ".join(below.cmdline()):
                    found.add(below.pid)
        except psutil.Error:
            continue
    return found


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def driver(cluster, path: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "bench", "run", str(path), "--out", str(out), "--ray", cluster.address]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finished(out: Path) -> int:
    return len(list(out.glob("parts/cell-*")))


def test_a_killed_driver_loses_nothing_and_an_interrupted_one_leaves_nothing(cluster, tmp_path):
    path, out = write_board(tmp_path, seconds=0.5), tmp_path / "out"
    for number, (sign, code) in enumerate(((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130))):
        parent = driver(cluster, path, out)
        before = finished(out)
        wait_until(lambda before=before: finished(out) >= before + 3)
        assert processes()
        os.kill(parent.pid, sign)
        text = parent.communicate(timeout=60)[1]
        assert parent.returncode == code, text
        assert "Traceback" not in text
        wait_until(lambda: not processes())
        assert len(load_cells(out).query("status == 'ok'")) >= 3 * (number + 1)
    keys = set(load_cells(out).query("status == 'ok'")["key"])
    assert run_board(load_board(path), out, Options(quiet=True, workers=0)) == []
    cells = load_cells(out)
    assert set(cells["status"]) == {"ok"}
    runs = {run["id"] for run in read_manifest(out)["runs"]}
    assert len(runs) == 3
    assert set(cells["run"]) <= runs
    assert len(set(cells[cells["key"].isin(keys)]["run"])) <= 2  # kept


def test_a_worker_and_a_node_may_die_and_the_bits_are_those_of_a_local_run(cluster, tmp_path):
    path = fatal_board(tmp_path)
    assert run_on(cluster, path, tmp_path / "ray") == []
    assert {p.name for p in (tmp_path / "victims").iterdir()} == {"worker", "node"}
    cluster.add_node(**NODE)  # in place of the other
    assert run_board(load_board(path), tmp_path / "local", Options(quiet=True, workers=0)) == []
    same(tmp_path / "local", tmp_path / "ray")
    for line in load_cells(tmp_path / "ray").to_dict("records"):
        assert str(tmp_path) not in str(line["error"])


def test_code_and_small_data_go_with_a_run_and_large_data_must_lie_on_the_nodes(cluster, tmp_path, monkeypatch):
    """The driver's files are of no use for the time of the run: nodes have their own."""
    folder, out = tmp_path / "own", tmp_path / "out"
    folder.mkdir()
    digits = load_dataset("digits").select(range(60))
    np.savez(folder / "own.npz", x=digits.x.numpy(), y=digits.y.numpy(), num_classes=10)
    (folder / "scale.txt").write_text("1")
    path = write_board(folder, BOARD.replace('"digits"', '"own.npz"'))
    models, scale = folder / "models.py", folder / "scale.txt"
    (folder / "empty").mkdir()
    (folder / ".gitignore").write_text("*.txt\n")  # is about other copies
    models.write_text(f"{MODELS}\n{READS}")
    monkeypatch.setenv("PUREBENCH_DATA", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(files, "_SMALL", 0)
    with pytest.raises(UserError, match=r"node [\d.]+ of the Ray cluster: .*own.npz"):
        run_on(cluster, path, out)
    assert not out.exists()
    monkeypatch.setattr(files, "_SMALL", 1_000_000)

    code = models.read_text()

    def write_and_spoil(found: dict[str, Path], package: Path) -> None:
        files.write_package(found, package)
        models.write_text(f"{code}\nraise RuntimeError('not of the node')\n")
        scale.write_text("not of the node")

    monkeypatch.setattr(connect, "write_package", write_and_spoil)
    assert run_on(cluster, path, out) == []
    models.write_text(code)
    scale.write_text("1")
    assert set(load_cells(out)["dataset"]) == {"own.npz"}
    nowhere = Options(quiet=True, ray=RayOptions("127.0.0.1:9"))
    assert run_board(load_board(path), out, nowhere) == []  # all of it holds, so that nothing is connected to


def test_a_node_with_another_purebench_is_refused(cluster, tmp_path, capsys):
    for name in ("defenses", "leaderboards"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "bench" / "spec" / "threat.py").open("a") as code:
        code.write("\n# another\n")
    node = cluster.add_node(**NODE, env_vars={"PYTHONPATH": str(tmp_path)})
    try:
        path = write_board(tmp_path)
        assert main(["run", str(path), "--out", str(tmp_path / "out"), "--ray", cluster.address, "--quiet"]) == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1
        assert "of the Ray cluster: its purebench" in told[0]
        assert not (tmp_path / "out").exists()
    finally:
        cluster.remove_node(node)


def test_addresses_and_options_that_lead_nowhere_are_one_line(tmp_path, monkeypatch, capsys):
    path = write_board(tmp_path)
    base = ["run", str(path), "--out", str(tmp_path / "out"), "--quiet", "--ray"]
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, and says nothing
    monkeypatch.setattr(connect, "_REACH_SECONDS", 0.2)
    for words, told in (
        ([f"127.0.0.1:{silent.getsockname()[1]}"], "(timed out); start it with `ray start --head`"),
        (["127.0.0.1:9"], "cannot reach Ray at 127.0.0.1:9 (Connection refused)"),
        (["auto", "--workers", "0"], "--workers 0 runs cells in this process"),
        (["auto", "--device", "cuda:1"], "Ray gives each worker its GPU"),
        (["auto", "--gpus", "0.5"], "--gpus without an accelerator"),
    ):
        assert main([*base, *words]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert told in lines[0]
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*base, "auto"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith('need Ray: pip install "purebench[ray]"')
    assert not (tmp_path / "out").exists()
