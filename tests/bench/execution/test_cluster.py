"""Test without Ray what a run on a cluster decides: files that go along, their names there, room, kinds of machines."""

from pathlib import Path

import numpy as np
import pytest
from boards import BOARD, write_board

from bench.board.load import load_board
from bench.execution.options import Options, RayOptions
from bench.execution.plan import RunPlan, plan_run
from bench.execution.resume import Resumable
from bench.execution.run_entries import RunEntries
from bench.execution.workers.cluster import files
from bench.execution.workers.cluster.connect import _room
from bench.execution.workers.cluster.files import NodeFiles, files_of_run, write_package
from bench.execution.workers.limits import GIB
from bench.execution.workers.messages import Computed
from bench.execution.workers.tasks import ComputeTask
from bench.report.footnotes import mixed
from bench.store.environment import describe_run
from bench.store.folder import CellResult, Store
from bench.store.manifest import read_manifest
from defenses.utils.errors import UserError
from defenses.zoo.weight_paths import find_weights


def plan_of(path: Path, **options: object) -> RunPlan:
    board = load_board(path)
    return plan_run(board, board.cells(), Resumable({}), path.parent / "out", Options(quiet=True, **options))


def test_code_weights_and_small_data_go_with_a_run(tmp_path, monkeypatch):
    data = tmp_path / "own.npz"
    np.savez(data, x=np.zeros((60, 1, 8, 8), np.float32), y=np.arange(60) % 10)
    text = BOARD.replace('"digits"', f'"{data}"')
    path = write_board(tmp_path, text)
    (tmp_path / "models.py").write_text(
        (tmp_path / "models.py").read_text()
        + "\nfrom beside import scale\nopen(__file__.replace('models.py', 'scale.txt')).read()\n"
    )
    (tmp_path / "beside.py").write_text("scale = 1\n")
    (tmp_path / "scale.txt").write_text("1")
    (tmp_path / "other.txt").write_text("not read")
    found = files_of_run(plan_of(path))
    names = ("beside.py", "models.py", "own.npz", "scale.txt")
    assert found == {f"files{tmp_path}/{name}": tmp_path / name for name in names}
    monkeypatch.setattr(files, "_SMALL", 100)
    assert f"files{data}" not in files_of_run(plan_of(path))
    monkeypatch.setattr(files, "_LARGEST", 100)
    assert sorted(files_of_run(plan_of(path))) == [f"files{tmp_path}/{name}" for name in ("beside.py", "scale.txt")]


def test_weights_go_as_in_a_folder_of_weights(tmp_path):
    text = BOARD.replace('name = "{models}:noisy"\nlabel = "noisy"', 'name = "pgd-at"')
    found = files_of_run(plan_of(write_board(tmp_path, text)))
    weights = {where: path for where, path in found.items() if where.startswith("weights/")}
    assert weights["weights/digits/pgd-at.safetensors"] == find_weights("pgd-at", "digits")
    package = tmp_path / "package"
    write_package(found, package)
    assert find_weights("pgd-at", "digits", package / "weights").is_relative_to(package)
    assert {Path(where).name.partition(".")[0] for where in weights} == {"pgd-at"}


def test_names_are_those_of_the_node_and_results_those_of_the_driver(tmp_path):
    path = write_board(tmp_path)
    plan = plan_of(path)
    package = tmp_path / "package"
    write_package(files_of_run(plan), package)
    node = NodeFiles(package, str(tmp_path), "/data")
    models = tmp_path / "models.py"
    assert node.here == package / f"files{tmp_path}"
    assert node.moved(f"{models}:linear") == f"{package}/files{models}:linear"
    for name in ("adp", "models.py:linear", "/elsewhere/models.py:linear", "folder:/data?mode=L", "autoattack:rand"):
        assert node.moved(name) == name
    assert node.moved(f"folder:{tmp_path}?mode=L") == f"folder:{package}/files{tmp_path}?mode=L"
    assert node.moved(f"corrupted:{models}/fog/3".replace("fog", "contrast")).endswith(f"files{models}/contrast/3")
    task = ComputeTask(next(c for c in plan.pending if c.attack.label == "slow"))
    there = node.task(task)
    assert there.cell.defense.name.startswith(f"{package}/")
    assert there.cell.attack.name.startswith(f"{package}/")
    assert there.name == task.name  # the same key
    result = CellResult.failure(there.cell, f"{package}/files{models} is broken", None)
    told = node.told(Computed(there.name, result, 1.0))
    assert told.result.line["error"] == f"{models} is broken"
    assert str(package) not in str(told.result.line)


def resources(**values: float) -> dict[str, float]:
    return {"CPU": 4.0, "memory": 8.0 * GIB} | values


@pytest.mark.parametrize(("nodes", "options", "chosen", "expected"), [
    ([resources(), resources(CPU=2.0)], {}, {}, (6, 2.0)),  # 8 GiB by 4 workers
    ([resources(), resources(CPU=2.0)], {"memory": 4.0}, {}, (4, 4.0)),
    ([resources(), resources(CPU=2.0)], {}, {"workers": 3}, (3, 2.0)),
    ([resources(GPU=1.0), resources()], {"device": "cuda"}, {}, (1, 8.0)),
    ([resources(GPU=1.0), resources()], {"device": "cuda"}, {"gpus": 0.5}, (2, 4.0)),
    ([resources(GPU=2.0)], {"device": "cuda"}, {"gpus": 2.0}, (1, 8.0)),
])  # fmt: skip
def test_as_many_workers_run_as_there_is_room_for(tmp_path, nodes, options, chosen, expected):
    plan = plan_of(write_board(tmp_path), **options)
    workers, memory, asked = _room(nodes, plan, RayOptions("auto", **chosen))
    assert (workers, memory) == (expected[0], pytest.approx(expected[1]))
    assert asked["num_gpus"] == (chosen.get("gpus", 1.0) if "device" in options else 0.0)
    assert asked["memory"] <= memory * GIB


def test_a_cluster_without_room_is_refused(tmp_path):
    plan = plan_of(write_board(tmp_path), device="cuda")
    with pytest.raises(UserError, match="no node of the Ray cluster has the 1 CPUs, 1 GPUs"):
        _room([resources()], plan, RayOptions("auto"))


def test_another_kind_of_machine_has_its_own_entry_and_is_told_below_tables(tmp_path):
    store, entry = Store(tmp_path), describe_run(1, 2, "cpu")
    entries = RunEntries(store, {"board": "small"}, entry)
    same = describe_run(1, 1, "cpu")
    other = describe_run(1, 1, "cpu")
    other["hardware"] = entry["hardware"] | {"processor": "another"}
    third = describe_run(1, 1, "cpu")
    third["versions"] = entry["versions"] | {"torch": "0"}
    assert entries.of(same) == entries.run
    assert entries.of(other) == entries.of(other) != entries.run
    entries.write({})
    ids = [entries.run, entries.of(other), entries.of(third)]
    entries.finish(1.0)
    runs = {run["id"]: run for run in read_manifest(tmp_path)["runs"]}
    assert sorted(runs) == sorted(ids)
    assert runs[ids[1]]["hardware"]["processor"] == "another"
    assert runs[ids[2]]["seconds"] == 1.0
    lines = [{"defense": "d", "status": "ok", "run": run} for run in ids[:2]]
    processor = entry["hardware"]["processor"]
    first, second = sorted(("another", str(processor)))
    assert mixed(lines, read_manifest(tmp_path)) == [f"d: cells from 2 environments: processor {first} / {second}"]
