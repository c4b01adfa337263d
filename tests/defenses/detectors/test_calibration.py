"""Detectors are calibrated on the data of the run's data root: two files of one name in different folders."""

import shutil

import numpy as np
import pytest
from boards import purebench_here

from bench.audit.reproduction.verify import VerifyOptions, verify
from bench.board.load import load_board
from bench.execution.options import Options
from bench.execution.run_board import run_board
from defenses import load_model
from defenses.core.detector import calibrated, clean_scores
from defenses.data.dataset import dataset_info, load_dataset
from defenses.utils.errors import UserError
from defenses.zoo.weight_paths import find_weights

SQUEEZING = {"classifier": "small", "bits": 1, "median": 0, "search": 0, "fpr": "1/10"}
BOARD = """
dataset = "mine.npz"
[threat]
norm = "Linf"
eps = "1/5"
[verdict]
draws = 1
selection = 1
[[defense]]
name = "feature-squeezing"
params = { classifier = "small", bits = 1, median = 0, search = 0, fpr = "1/10" }
[[defense]]
name = "bit-depth"
params = { classifier = "small", detector = { name = "feature-squeezing", bits = 2, median = 0, search = 0 } }
[[attack]]
name = "foolbox:LinfFastGradientAttack"
views = [{ gradient = "bpda" }, { gradient = "blind" }]
on = "feature-squeezing"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make two data roots with a mine.npz each, digits and faint digits, and weights."""
    base = tmp_path_factory.mktemp("data")
    parts = {split: load_dataset("digits", split) for split in ("train", "validation", "test")}
    for name, contrast in (("plain", 1.0), ("faint", 0.6)):
        (base / name).mkdir()
        arrays = {f"x_{s}": (contrast * d.x[:60]).numpy() for s, d in parts.items()}
        labels = {f"y_{s}": d.y[:60].numpy() for s, d in parts.items()}
        np.savez(base / name / "mine.npz", **arrays, **labels, num_classes=10)
    weights = find_weights("undefended", "digits")
    (base / "w" / "mine.npz").mkdir(parents=True)
    for ending in (".safetensors", ".json"):
        shutil.copy(weights.with_suffix(ending), base / "w" / "mine.npz" / f"small{ending}")
    return base


def test_the_threshold_is_that_of_the_data_at_hand(folder):
    thresholds = set()
    for name in ("plain", "faint"):
        root = folder / name
        defense = load_model("feature-squeezing", "mine.npz", weights_root=folder / "w", data_root=root, **SQUEEZING)
        guard, held = defense.guard, load_dataset("mine.npz", "validation", root=root).x
        scores = clean_scores(guard.detector, held, guard.classifier)
        assert guard.threshold == calibrated(guard.detector, guard.classifier, scores, fpr=0.1).threshold
        revision = dataset_info("mine.npz", root=root).revision
        assert defense.provenance.fingerprint["detector_data"] == revision
        thresholds.add(guard.threshold)
    assert len(thresholds) == 2
    with pytest.raises(UserError, match=r"mine\.npz"):
        load_model("feature-squeezing", "mine.npz", weights_root=folder / "w", **SQUEEZING)


def test_what_learns_looks_at_the_data_at_hand(folder):
    """There are too few training images."""
    params = {"classifier": "small", "eps": 0.2, "fpr": "1/10"}
    root = folder / "w"
    with pytest.raises(UserError, match="learns from at least 100 training images, and there are 60"):
        load_model("mahalanobis", "mine.npz", weights_root=root, data_root=folder / "plain", **params)


@pytest.mark.parametrize("by_board", [True, False])
def test_a_board_with_a_data_root_runs_and_is_verified(folder, tmp_path, by_board):
    """With the data root from the loaded board, or from the options of the run."""
    (tmp_path / "board.toml").write_text(BOARD)
    weights, data = folder / "w", folder / "faint"
    board = load_board(tmp_path / "board.toml", weights_root=weights, data_root=data)
    options = Options(weights_root=weights, data_root=None if by_board else data, workers=0, quiet=True)
    assert run_board(board, tmp_path / "out", options) == []
    verification = verify(tmp_path / "out", VerifyOptions(weights_root=weights, data_root=data))
    assert verification.agrees, (verification.findings, verification.rows)
    names = [row.name[0] for row in verification.rows]
    assert set(names) == {"feature-squeezing", "bit-depth"}
    with pytest.raises(UserError, match=r"mine\.npz"):
        load_board(tmp_path / "board.toml", weights_root=weights)


def test_commands_pass_the_data_root_on(folder, tmp_path):
    (tmp_path / "board.toml").write_text(BOARD)
    roots = ["--data-root", folder / "plain", "--weights-root", folder / "w"]
    out = tmp_path / "out"
    for command in (
        ["run", tmp_path / "board.toml", "--out", out, "--quiet", "--workers", "1", *roots],
        ["verify", out, "--quiet", *roots],
        ["certify", "feature-squeezing", "--dataset", "mine.npz", *roots, "--set", "classifier=small", "search=0"],
    ):
        result = purebench_here(*command)
        assert result.returncode == 0, (command, result.stdout, result.stderr)
