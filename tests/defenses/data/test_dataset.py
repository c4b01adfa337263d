"""Data sets and index lists: order, splits, ranges, and files that are missing, damaged or hostile."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import defenses.data
from defenses.data import dataset, formats
from defenses.data.dataset import dataset_info, load_dataset
from defenses.utils.errors import UserError
from defenses.utils.paths import data_root

ROOT = data_root()
needs_mnist = pytest.mark.skipif(not (ROOT / "MNIST" / "raw").is_dir(), reason=f"no MNIST in {ROOT}")
needs_cifar = pytest.mark.skipif(not (ROOT / "cifar-10-batches-py").is_dir(), reason=f"no CIFAR-10 in {ROOT}")
SPLITS = ("train", "validation", "test")


def write_npz(folder: Path, **arrays: np.ndarray) -> str:
    path = folder / "own.npz"
    np.savez(path, **arrays)
    return str(path)


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_public_names_are_listed_and_loaded_when_used():
    names = ["Dataset", "DatasetInfo", "dataset_info", "load_dataset"]
    assert sorted(defenses.data.__all__) == names
    assert set(names) <= set(dir(defenses.data))
    assert [getattr(defenses.data, name) for name in names] == [getattr(dataset, name) for name in names]
    code = "import sys, defenses.data; print({'torch', 'numpy', 'defenses.data.dataset'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


# digits


def test_digits_splits_are_fixed_disjoint_and_complete():
    parts = [load_dataset("digits", s) for s in SPLITS]
    assert [len(p) for p in parts] == [1000, 297, 500]
    shas = [sha for p in parts for sha in p.shas]
    assert len(set(shas)) == 1797
    # The order itself is part of every result's identity.
    assert parts[2].sha(0)[:8] == "e57acb92"
    assert parts[0].sha(0)[:8] == "3cd07c34"


def test_digits_are_images_in_range_and_balanced():
    test = load_dataset("digits")
    assert test.x.shape == (500, 1, 8, 8)
    assert test.x.dtype == torch.float32
    assert (float(test.x.min()), float(test.x.max())) == (0, 1)
    assert test.y.dtype == torch.int64
    assert all(abs(int(n) - 10) <= 2 for n in test.y[:100].bincount(minlength=10))


def test_digits_agree_with_scikit_learn():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = dataset.digits_order(bunch.target)
    assert sorted(order) == list(range(1797))
    train = load_dataset("digits", "train")
    assert np.array_equal(train.x[7, 0].numpy() * 16, bunch.images[order[7]])
    assert int(train.y[7]) == bunch.target[order[7]]


def test_sha_is_of_label_and_pixels():
    d = load_dataset("digits", "validation")
    raw = np.int64(d.y[3]).tobytes() + d.x[3].numpy().tobytes()
    assert d.sha(3) == hashlib.sha256(raw).hexdigest()
    part = d.select([5, 3])
    assert part.shas == (d.sha(5), d.sha(3))
    assert len(part) == 2


# MNIST and CIFAR-10


@needs_mnist
def test_mnist_splits():
    train, validation, test = (load_dataset("mnist", s) for s in SPLITS)
    assert [len(d) for d in (train, validation, test)] == [55000, 5000, 10000]
    assert test.x.shape[1:] == (1, 28, 28)
    assert test.y[:5].tolist() == [7, 2, 1, 0, 4]  # the official order
    with gzip.open(ROOT / "MNIST/raw/train-images-idx3-ubyte.gz") as f:
        last = np.frombuffer(f.read()[-784:], np.uint8).reshape(28, 28)
    assert np.allclose(validation.x[-1, 0].numpy() * 255, last)


@needs_cifar
def test_cifar10_agrees_with_torchvision():
    from torchvision.datasets import CIFAR10

    ours, theirs = load_dataset("cifar10"), CIFAR10(str(ROOT), train=False, download=False)
    assert ours.y.tolist() == theirs.targets
    assert np.array_equal((ours.x[:50] * 255).round().byte().permute(0, 2, 3, 1).numpy(), theirs.data[:50])
    assert len(load_dataset("cifar10", "validation")) == 5000


@needs_mnist
def test_truncated_mnist_names_the_file(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (raw / name).write_bytes((ROOT / "MNIST/raw" / name).read_bytes())
    images = raw / "t10k-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    for broken in (whole[:10_000], b"", b"not gzip at all", gzip.compress(b"\0\0\x0d\x03" + b"\0" * 12)):
        images.write_bytes(broken)
        with pytest.raises(UserError, match="t10k-images") as error:
            load_dataset("mnist", root=tmp_path)
        one_line(error)
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(UserError, match="header says"):
        load_dataset("mnist", root=tmp_path)
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1] + b"\7"))
    with pytest.raises(UserError, match="not the published file"):
        load_dataset("mnist", root=tmp_path)


@pytest.mark.parametrize(("name", "file"), [("mnist", "t10k-images-idx3-ubyte.gz"), ("cifar10", "test_batch")])
def test_missing_files_say_what_goes_where(tmp_path, name, file):
    with pytest.raises(UserError, match=file) as error:
        load_dataset(name, root=tmp_path)
    assert str(tmp_path) in one_line(error)


@needs_cifar
def test_damaged_cifar_is_refused(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes((ROOT / "cifar-10-batches-py/test_batch").read_bytes()[:100_000])
    with pytest.raises(UserError, match="test_batch is truncated or not the published file"):
        load_dataset("cifar10", root=tmp_path)


class Hostile:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hostile_pickles_do_not_execute(tmp_path, protocol):
    witness = tmp_path / "executed"
    for hostile in (
        Hostile(os.system, f"touch {witness}"),
        Hostile(eval, f"open({str(witness)!r}, 'w')"),
        Hostile(Path.touch, witness),
        Hostile(getattr, np.ndarray, "tofile"),
    ):
        raw = pickle.dumps({b"data": hostile, b"labels": [1]}, protocol=protocol)
        with pytest.raises(UserError, match="no pickle of plain arrays") as error:
            formats.unpickle_arrays(raw, tmp_path / "test_batch")
        one_line(error)
        assert not witness.exists()


def test_plain_pickles_are_read(tmp_path):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    found = formats.unpickle_arrays(pickle.dumps({b"data": array, b"labels": [1, 2]}, protocol=3), tmp_path)
    assert np.array_equal(found[b"data"], array)
    assert found[b"labels"] == [1, 2]
    with pytest.raises(UserError):
        formats.unpickle_arrays(b"\x80\x02}q", tmp_path)


# .npz


@pytest.mark.parametrize("shape", [(4, 3, 6, 5), (4, 6, 5, 3), (4, 6, 5), (4, 6, 5, 1)])
@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels"), ("x_test", "y_test")])
def test_npz_layouts_and_names(tmp_path, shape, names):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = write_npz(tmp_path, **{names[0]: x, names[1]: np.array([0, 1, 2, 1], np.int32)})
    d = load_dataset(path)
    channels = 3 if 3 in shape else 1
    assert d.x.shape == (4, channels, 6, 5)
    assert (d.num_classes, d.y.tolist()) == (3, [0, 1, 2, 1])
    expected = x.reshape(4, 6, 5, -1).transpose(0, 3, 1, 2) if shape[1] == 6 else x
    assert torch.equal(d.x, torch.from_numpy(expected.astype(np.float32) / 255))
    info = dataset_info(path)
    assert (info.shape, info.splits, info.revision) == ((channels, 6, 5), {"test": 4}, d.revision)


def test_npz_with_three_splits(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"x_{s}": rng.random((n, 1, 4, 4)) for s, n in zip(SPLITS, (5, 3, 2), strict=True)}
    labels = {f"y_{s}": np.zeros(len(arrays[f"x_{s}"]), np.int64) for s in SPLITS}
    path = write_npz(tmp_path, **arrays, **labels, num_classes=np.array(7))
    assert dataset_info(path).splits == {"train": 5, "validation": 3, "test": 2}
    assert dataset_info(path).num_classes == 7
    assert len(load_dataset(path, "validation")) == 3


def test_npz_is_found_under_the_root(tmp_path):
    write_npz(tmp_path, x=np.zeros((1, 1, 2, 2), np.uint8), y=np.array([0]))
    assert len(load_dataset("own.npz", root=tmp_path)) == 1
    assert dataset_info("own.npz", root=tmp_path).splits == {"test": 1}


IMAGES, LABELS = np.zeros((3, 1, 4, 4), np.float32), np.array([0, 1, 0])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": IMAGES + 255, "y": LABELS}, r"own.npz: x runs from 255 to 255; images must lie in \[0, 1\]"),
        ({"x": IMAGES - 0.5, "y": LABELS}, "runs from -0.5"),
        ({"x": IMAGES * np.nan, "y": LABELS}, "runs from nan"),
        ({"x": IMAGES.astype(int), "y": LABELS}, "store uint8"),
        ({"x": IMAGES, "y": LABELS[:2]}, "3 images and 2 labels"),
        ({"x": IMAGES, "y": LABELS - 1}, "negative label"),
        ({"x": IMAGES, "y": LABELS + 0.5}, "whole numbers"),
        ({"x": IMAGES[0, 0], "y": LABELS}, "has shape"),
        ({"x": IMAGES, "z": LABELS}, "name its arrays x and y"),
        ({}, "holds no array; name its arrays x and y"),
        ({"x": IMAGES, "y": LABELS, "num_classes": np.array(1)}, "above the highest label"),
        ({"x": np.array([None] * 3), "y": LABELS}, "has shape|no plain numeric array"),
        ({"x": IMAGES, "y": np.array([None] * 3)}, "no plain numeric array"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": np.zeros((3, 1, 5, 5), np.uint8), "y_test": LABELS},
            "differ in shape",
        ),
    ],
)
def test_bad_npz_says_what_is_wrong(tmp_path, arrays, words):
    with pytest.raises(UserError, match=words) as error:
        load_dataset(write_npz(tmp_path, **arrays))
    assert "own.npz" in one_line(error)


def test_damaged_npz(tmp_path):
    path = Path(write_npz(tmp_path, x=IMAGES, y=LABELS))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"truncated or no \.npz"):
        load_dataset(str(path))
    with pytest.raises(UserError, match="missing"):
        dataset_info(str(tmp_path / "none.npz"))


def test_wrong_names_and_splits(tmp_path):
    with pytest.raises(UserError, match="did you mean cifar10"):
        dataset_info("cifar-10")
    with pytest.raises(UserError, match="did you mean validation"):
        load_dataset("digits", "validate")
    with pytest.raises(UserError, match="no train split"):
        load_dataset(write_npz(tmp_path, x=IMAGES, y=LABELS), "train")


def test_root_is_chosen_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("PUREBENCH_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root("elsewhere") == Path("elsewhere")


def test_information_needs_no_heavy_import():
    code = (
        "import sys; from defenses.data.dataset import dataset_info; from bench.board.indices import resolve; "
        "dataset_info('digits'); resolve('random-10-seed0', 500); "
        "print([m for m in ('torch', 'sklearn', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", dataset.NAMES)
def test_information_agrees_with_the_data(name):
    try:
        loaded = load_dataset(name)
    except UserError as e:
        pytest.skip(str(e))
    info = dataset_info(name)
    assert (len(loaded), tuple(loaded.x.shape[1:])) == (info.splits["test"], info.shape)
    assert (loaded.revision, loaded.num_classes) == (info.revision, info.num_classes)
