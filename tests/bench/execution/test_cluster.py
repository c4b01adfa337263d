"""Test without Ray what a run on a cluster decides: files that go along, their names there, room, kinds of machines."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from boards import BOARD, write_board

from bench.board.board import BoardImages
from bench.board.load import load_board
from bench.execution.forecast.estimates import Forecast
from bench.execution.intent import intent
from bench.execution.options import Options, RayOptions
from bench.execution.plan import RunPlan, plan_run
from bench.execution.resume import Resumable
from bench.execution.run_entries import RunEntries
from bench.execution.sources import Sources
from bench.execution.workers.cluster import files
from bench.execution.workers.cluster import nodes as cluster_nodes
from bench.execution.workers.cluster.actor import Refusal
from bench.execution.workers.cluster.backend import RayActors, _Actor
from bench.execution.workers.cluster.connect import _checked, _reach, _room
from bench.execution.workers.cluster.files import NodeFiles, files_of_run, write_package
from bench.execution.workers.limits import GIB
from bench.execution.workers.messages import Certified, Computed
from bench.execution.workers.session import WorkerSettings
from bench.execution.workers.tasks import ComputeTask
from bench.report.footnotes import mixed
from bench.spec.cell import row_of
from bench.store.environment import describe_run, versions
from bench.store.folder import CellResult, Store
from bench.store.manifest import read_manifest
from defenses.utils.errors import UserError
from defenses.zoo.weight_paths import find_weights


def plan_of(path: Path, **options: object) -> RunPlan:
    board = load_board(path)
    return plan_run(board, board.cells(), Resumable({}), path.parent / "out", Options(quiet=True, **options))


def test_code_weights_and_small_data_go_with_a_run(tmp_path, monkeypatch, caplog):
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
    found, has_data = files_of_run(plan_of(path))
    assert has_data
    names = ("beside.py", "models.py", "own.npz", "scale.txt")
    assert found == {f"files{tmp_path}/{name}": tmp_path / name for name in names}
    monkeypatch.setattr(files, "_SMALL", 100)
    assert f"files{data}" not in files_of_run(plan_of(path)).files
    monkeypatch.setattr(files, "_LARGEST", 100)
    assert not caplog.messages
    names = [f"files{tmp_path}/{name}" for name in ("beside.py", "scale.txt")]
    assert sorted(files_of_run(plan_of(path)).files) == names
    monkeypatch.setattr(files, "_SMALL", 1_000_000)
    assert not files_of_run(plan_of(path)).has_data
    large = tmp_path / "models.py"
    assert caplog.messages == [
        f"note: {large} is too large to go with the run; it must lie on the nodes",
        f"note: 2 files, as {large}, are too large to go with the run; they must lie on the nodes",
    ]


def test_weights_go_as_in_a_folder_of_weights(tmp_path):
    text = BOARD.replace('name = "{models}:noisy"\nlabel = "noisy"', 'name = "pgd-at"')
    found = files_of_run(plan_of(write_board(tmp_path, text))).files
    weights = {where: path for where, path in found.items() if where.startswith("weights/")}
    assert weights["weights/digits/pgd-at.safetensors"] == find_weights("pgd-at", "digits")
    package = tmp_path / "package"
    write_package(found, package)
    assert find_weights("pgd-at", "digits", package / "weights").is_relative_to(package)
    assert {Path(where).name.partition(".")[0] for where in weights} == {"pgd-at"}


def test_the_folders_of_a_node_are_hidden_by_no_other_file(tmp_path, monkeypatch):
    """An index list lies in the folder of data sets, and beside pictures; some weights have gone with the run."""
    package, data, own = tmp_path / "package", tmp_path / "data", tmp_path / "own"
    for folder in (package / f"files{data}", package / "weights" / "digits", data, own / "digits"):
        folder.mkdir(parents=True)
    (package / f"files{data}" / "indices.json").write_text("[0]")
    name, options = f"folder:{data}", Options(data_root=data, weights_root=own)
    settings = WorkerSettings(BoardImages("small", name, "test", "first-10", None), 1, None, options, "")
    gone, here = (NodeFiles(package, str(tmp_path), root).settings(settings) for root in (str(data), ""))
    assert gone.images.dataset == f"folder:{package}/files{data}"
    assert gone.options.data_root == package / f"files{data}"
    assert here.images.dataset == name
    assert here.options.data_root == data
    (package / "weights" / "digits" / "small.safetensors").write_text("")
    (own / "digits" / "large.safetensors").write_text("")
    monkeypatch.setenv("PUREBENCH_WEIGHTS", NodeFiles(package, "/", "").weights(own))
    assert find_weights("small", "digits").is_relative_to(package)
    assert find_weights("large", "digits").is_relative_to(own)
    assert not find_weights("pgd-at", "digits").is_relative_to(tmp_path)  # purebench's


def test_names_are_those_of_the_node_and_results_those_of_the_driver(tmp_path):
    path = write_board(tmp_path)
    plan = plan_of(path)
    package = tmp_path / "package"
    write_package(files_of_run(plan).files, package)
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


def test_what_a_node_has_otherwise_is_this_machines_in_results_and_certificates(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    path = write_board(tmp_path)
    here = "os.path.dirname(__file__)"
    reads = f"os.environ['OMP_NUM_THREADS'], os.listdir({here}), os.path.exists({here} + '/flag')"
    (tmp_path / "models.py").write_text((tmp_path / "models.py").read_text() + f"\nimport os\n{reads}\n")
    cell = plan_of(path).pending[0]
    sources = Sources().of(cell)
    line, certificate = ({"sources": json.loads(json.dumps(sources))} for _ in range(2))
    answers = {"$OMP_NUM_THREADS", "./", "?flag"}
    for entry in (*line["sources"], *certificate["sources"]):
        assert answers <= entry["files"].keys()
        entry["files"] |= {path: ["0", 1, 2] for path in answers}
    assert Sources().outdated(cell, line)
    actor = _Actor(None, "run", ComputeTask(cell))
    for message in (Computed("", CellResult(line), 1.0), Certified("", certificate)):
        actor.place(message, Sources())
    assert line == {"run": "run", "sources": sources}
    assert certificate == {"sources": sources}
    assert not Sources().outdated(cell, line)


def resources(**values: float) -> dict[str, float]:
    return {"CPU": 4.0, "memory": 8.0 * GIB} | values


@pytest.mark.parametrize(("nodes", "options", "chosen", "expected"), [
    ([resources(), resources(CPU=2.0)], {}, {}, (6, 2.0)),  # 8 GiB by 4 workers
    ([resources(), resources(CPU=2.0)], {"memory": 4.0}, {}, (4, 4.0)),
    ([resources(), resources(CPU=2.0)], {}, {"workers": 3}, (3, 2.0)),
    ([resources(GPU=1.0), resources()], {"device": "cuda"}, {}, (1, 8.0)),
    ([resources(GPU=1.0), resources()], {"device": "cuda"}, {"gpus": 0.5}, (2, 4.0)),
    ([resources(GPU=2.0)], {"device": "cuda"}, {"gpus": 2.0}, (1, 8.0)),
    ([resources(GPU=2.0, CPU=8.0)], {"device": "cuda"}, {"gpus": 0.4}, (4, 2.0)),  # two a GPU, none across both
])  # fmt: skip
def test_as_many_workers_run_as_there_is_room_for(tmp_path, nodes, options, chosen, expected):
    plan = plan_of(write_board(tmp_path), **options)
    workers, memory, asked, _ = _room(nodes, plan, RayOptions("auto", **chosen))
    assert (workers, memory) == (expected[0], pytest.approx(expected[1]))
    assert asked["num_gpus"] == (chosen.get("gpus", 1.0) if "device" in options else 0.0)
    assert asked["memory"] <= memory * GIB


def test_a_node_on_which_no_worker_fits_is_not_asked(tmp_path):
    plan = plan_of(write_board(tmp_path), device="cuda")
    assert _room([resources(), resources(GPU=2.0)], plan, RayOptions("auto"))[3] == [0, 2]


def test_a_host_that_cannot_be_a_name_is_refused():
    for host in ("10.0..5", "a" * 64):
        with pytest.raises(UserError, match=f"cannot reach Ray at {host}:6379"):
            _reach(f"{host}:6379")


@pytest.mark.parametrize("dataset", ["hf:./nowhere", "folder:nowhere", "nowhere.npz"])
def test_a_node_without_the_data_says_so_before_any_cell(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = SimpleNamespace(images=SimpleNamespace(dataset=dataset, split="test"), options=Options())
    assert "nowhere" in cluster_nodes._other_data(settings, "sha256-0")


def test_the_check_of_data_takes_as_long_as_it_takes_and_is_told_once(caplog):
    answers = iter([([], []), (["slow"], []), (["other"], [])])
    waited = []

    def wait(left: list[str], *, timeout: float | None) -> tuple[list[str], list[str]]:
        waited.append(timeout)
        return next(answers)

    ray = SimpleNamespace(wait=wait, get=lambda name: ({"id": name}, ""))
    assert _checked({"other": "node 1", "slow": "node 2"}, ray) == [{"id": "other"}, {"id": "slow"}]
    assert waited == [30.0, None, None]
    assert caplog.messages == ["note: still checking the data of node 1, node 2"]
    answers = iter([(["slow"], [])])
    ray.get = lambda _: ({}, "its data are others")
    with pytest.raises(UserError, match="node 2: its data are others"):
        _checked({"other": "node 1", "slow": "node 2"}, ray)


def test_the_time_of_a_run_on_a_cluster_is_not_told_before_its_size_is_known(tmp_path):
    plan = plan_of(write_board(tmp_path))
    plan = replace(plan, forecasts={row_of(cell): Forecast(60.0, 1.0, "probe") for cell in plan.pending})
    assert "evaluations" not in intent(plan.cells, plan)
    there = replace(plan, options=replace(plan.options, ray=RayOptions("auto")))
    assert "; forecast 8,100 evaluations; " in intent(plan.cells, there)


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


def test_a_node_that_refuses_is_left_out_and_the_last_one_ends_the_run(monkeypatch, caplog):
    asked, killed, nodes = [], [], [{"NodeID": "late", "Alive": True, "Resources": resources()}]

    def options(**given: object) -> SimpleNamespace:
        def remote(_: object) -> SimpleNamespace:
            asked.append(given.get("label_selector"))
            return SimpleNamespace(report=SimpleNamespace(remote=lambda _: len(asked)))

        return SimpleNamespace(remote=remote)

    fake = SimpleNamespace(
        remote=lambda _: SimpleNamespace(options=options), put=lambda x: x, nodes=lambda: nodes, kill=killed.append
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    actors = RayActors(None, {"num_cpus": 1, "num_gpus": 0.0, "memory": GIB}, lambda _: "run")
    number = actors.start()
    error = UserError("node 1.2.3.4 of the Ray cluster: own.npz is missing")
    nodes.append({"NodeID": "good", "Alive": True, "Resources": resources()})
    assert actors._leave_out(number, Refusal("late", error)) == []
    assert actors._leave_out(number, Refusal("late", error)) == []  # had been asked before
    assert asked == [None, *2 * [{"ray.io/node-id": "!in(late)"}]]
    assert len(killed) == 2
    assert caplog.messages == ["warning: node 1.2.3.4 of the Ray cluster: own.npz is missing; the node is left out"]
    assert list(actors._without_nodes()) == []
    lost = nodes.pop()
    ((waits, end),) = actors._without_nodes()
    assert (waits, end.error) == (number, error)
    nodes.append(lost)
    (end,) = actors._leave_out(number, Refusal("good", error))
    assert end.error is error


def test_a_node_with_another_version_is_told_by_both_versions():
    here = versions()["purebench"]
    request = SimpleNamespace(versions=cluster_nodes._versions(), source=cluster_nodes.source_digest())
    assert cluster_nodes._other_code(request) == ""
    request.versions["purebench"] = "0.0.1"
    expected = f"it has purebench {here}, the driver 0.0.1; install the same on all nodes"
    assert cluster_nodes._other_code(request) == expected
    del request.versions["purebench"]
    assert cluster_nodes._other_code(request) == expected.replace("0.0.1", "none")
