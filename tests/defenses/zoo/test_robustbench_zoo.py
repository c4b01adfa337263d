"""RobustBench's models by name: which there are, what identifies them, and boards of them."""

import hashlib
import json

import numpy as np
import pytest
import torch
from boards import purebench_here
from zoo import BOARD, CORRUPT, SMALL, empty_cache, make_checkpoint

from bench import benchmark
from bench.board.defense_entry import describe, describe_loaded
from bench.board.load import load_board
from bench.execution.cell_runner import CellRunner
from bench.execution.options import Options
from bench.execution.run_board import run_board
from defenses import load_model
from defenses.utils.errors import UserError
from defenses.zoo import robustbench_index


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    return root, make_checkpoint(root)


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    return empty_cache(tmp_path, monkeypatch)


def test_a_model_of_the_zoo_has_one_fingerprint(checkpoint, nowhere):
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    root, path = checkpoint
    entry = {"name": f"robustbench:{SMALL}", "params": {"threat_model": "corruptions"}}
    reference = describe(entry, "cifar10-c/fog/5", weights_root=root)
    enums = {"dataset": BenchmarkDataset.cifar_10, "threat_model": ThreatModel.corruptions}
    loaded = describe_loaded(load_model(f"robustbench:{SMALL}", weights_root=root, **enums), None, name="")
    assert loaded == reference
    assert reference.fingerprint["weights"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert (reference.fingerprint["threat_model"], reference.fingerprint["robustbench"]) == ("corruptions", "1.1.1")


def test_the_zoo_is_read_as_robustbench_lists_it():
    from robustbench.model_zoo import model_dicts

    for dataset, by_threat in model_dicts.items():
        for threat, listed in by_threat.items():
            assert robustbench_index.names(dataset.value, threat.value) == list(listed)
            for name, facts in listed.items():
                entry = robustbench_index.find(
                    f"robustbench:{name}", "own.npz", {"trained_on": dataset.value, "threat_model": threat.value}
                )
                ids = facts["gdrive_id"]
                assert entry.ids == (tuple(ids) if isinstance(ids, list) else (ids,) if ids else ())
                assert not isinstance(ids, list) or len(ids) > 1
                assert entry.preprocessing == facts.get("preprocessing")


@pytest.mark.parametrize(
    ("name", "dataset", "params", "words"),
    [
        ("Wong2020Fas", "cifar10", {}, "did you mean Wong2020Fast"),
        ("Wong2020Fast", "digits", {}, "is for cifar10, cifar100, imagenet"),
        ("Wong2020Fast", "cifar10", {"threat_model": "Linff"}, "did you mean Linf"),
        ("Wong2020Fast", "cifar10", {"threat_model": "L2"}, 'give it threat_model = "Linf"'),
        ("Wong2020Fast", "cifar10", {"treat_model": "L2"}, "did you mean threat_model"),
        ("Wong2020Fast", "imagenet", {}, 'dataset = "imagenet/Crop288"'),
    ],
)
def test_names_of_the_zoo_that_do_not_exist(name, dataset, params, words):
    with pytest.raises(UserError, match=words) as caught:
        load_model(f"robustbench:{name}", dataset, **params)
    assert "\n" not in str(caught.value)


def test_a_model_of_the_zoo_without_its_prefix_is_found():
    with pytest.raises(UserError, match='is named "robustbench:Wong2020Fast"'):
        load_model("Wong2020Fast", dataset="cifar10", threat_model="Linf")
    with pytest.raises(UserError, match="did you mean awp or adp"):
        load_model("apd")


def own_board(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 3, 32, 32), np.float32), rng.integers(0, 10, 4)
    np.savez(tmp_path / "own.npz", x=x, y=y, num_classes=10)
    path = tmp_path / "zoo.toml"
    path.write_text(BOARD.format(data=tmp_path / "own.npz", model=SMALL))
    return path


def test_a_model_of_the_zoo_on_a_board(checkpoint, nowhere, tmp_path):
    board, out = own_board(tmp_path), tmp_path / "out"
    done = purebench_here("run", board, "--out", out, "--weights-root", checkpoint[0])
    assert done.returncode == 0, done.stderr
    keys = {json.loads(line)["key"] for line in (out / "plan.jsonl").read_text().splitlines()}
    model = load_model(f"robustbench:{SMALL}", weights_root=checkpoint[0], **CORRUPT)
    again = benchmark(model, dataset=str(tmp_path / "own.npz"), eps=8 / 255, attacks="foolbox:LinfFastGradientAttack")
    assert set(again["defense"]) == {f"robustbench:{SMALL}"}
    assert set(again["cell"]) == keys == {c.key for c in load_board(board, weights_root=checkpoint[0]).cells()}


@pytest.fixture
def board_and_file(checkpoint, nowhere, tmp_path):
    nowhere.mkdir(parents=True)
    file = nowhere / f"{SMALL}.pt"
    file.write_bytes(checkpoint[1].read_bytes())
    return load_board(own_board(tmp_path)), file


def test_weights_that_change_before_they_are_loaded_are_refused(board_and_file):
    board, file = board_and_file
    cell = board.cells()[0]
    assert CellRunner(board.images, Options()).defense(cell).num_classes == 10
    content = torch.load(file)
    content["state_dict"]["fc.bias"] += 1
    torch.save(content, file)
    with pytest.raises(UserError, match="changed while the board was read"):
        CellRunner(board.images, Options()).defense(cell)


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (lambda raw: raw[: len(raw) // 2], "cannot be loaded: .*; mend it or remove it"),
        (lambda raw: b"<html>quota</html>", "cannot be loaded: .*; mend it or remove it"),
        (lambda raw: b"", "cannot be loaded: .*; mend it or remove it"),
    ],
)
def test_damaged_checkpoints_are_refused_before_any_work(board_and_file, damaged, words, tmp_path):
    board, file = board_and_file
    file.write_bytes(damaged(file.read_bytes()))
    with pytest.raises(UserError, match=words) as caught:
        run_board(board, tmp_path / "out", Options(workers=0, quiet=True))
    assert [p for p in tmp_path.rglob("out/**/*") if p.is_file()] == []
    assert str(file) in str(caught.value)


def test_a_cache_that_is_no_folder_is_one_line(nowhere, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("defenses.zoo.robustbench.cache_dir", lambda: tmp_path / "file/weights")
    with pytest.raises(UserError, match=r"cannot write to .*: set XDG_CACHE_HOME"):
        load_model(f"robustbench:{SMALL}", **CORRUPT)
