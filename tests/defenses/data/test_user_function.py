"""A user's own code as a data set, and sets of the Hugging Face hub."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from defenses.data.dataset import dataset_info, labels_of, load_dataset
from defenses.utils.errors import UserError
from defenses.utils.names import portable

RNG = np.random.default_rng(1)

MINE = """
import numpy as np
import torch

X = np.arange(4 * 6 * 5 * 3, dtype=np.uint8).reshape(4, 6, 5, 3)

def pair(split):
    return (X, np.array([0, 1, 2, 1])) if split == "test" else None

def tensors(split):
    n = {"train": 5, "validation": 3, "test": 2}[split]
    return {"x": torch.full((n, 1, 4, 4), 0.5), "y": torch.zeros(n, dtype=torch.int32), "num_classes": 7}

def only(split):
    return {"test": (X, [0, 0, 0, 0])}[split]

only.splits = ("test",)

def raises(split):
    return {"test": 1}[split]

def random(split):
    return np.random.default_rng().random((3, 2, 2)), [0, 1, 0]

def short(split):
    return X, [0]

def outside(split):
    return X.astype(float), [0, 1, 0, 1]

def classes(split):
    return {"x": X, "y": [0, 1, 2, 1], "num_classes": 2}

def nothing(split):
    return None

def odd(split):
    return X
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return str(tmp_path / "mine.py")


def refused(words, name, split="test"):
    with pytest.raises(UserError, match=words) as error:
        _ = load_dataset(name, split).x
    assert "\n" not in str(error.value)


def test_a_function_of_the_users_own(mine):
    ours = load_dataset(f"{mine}:pair")
    x = np.arange(4 * 6 * 5 * 3, dtype=np.uint8).reshape(4, 6, 5, 3)
    assert torch.equal(ours.x, torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)))
    info = dataset_info(f"{mine}:pair")
    assert (info.num_classes, info.shape, info.splits) == (3, (3, 6, 5), {"test": 4})
    info = dataset_info(f"{mine}:tensors")
    assert (info.num_classes, info.splits) == (7, {"train": 5, "validation": 3, "test": 2})
    assert load_dataset(f"{mine}:tensors", "validation").x.shape == (3, 1, 4, 4)
    assert labels_of(f"{mine}:only", "test") == [0, 0, 0, 0]
    refused("has no train split", f"{mine}:pair", "train")


def test_its_revision_is_of_code_and_data_and_not_of_the_place(mine, tmp_path, monkeypatch):
    copy = tmp_path / "there" / "mine.py"
    copy.parent.mkdir()
    copy.write_text(MINE)
    assert dataset_info(f"{copy}:pair").revision == dataset_info(f"{mine}:pair").revision
    assert portable(f"{copy}:pair") == portable(f"{mine}:pair") == "mine.py:pair"
    copy.write_text(MINE + "\n# a comment changes nothing\n")
    assert dataset_info(f"{copy}:pair").revision == dataset_info(f"{mine}:pair").revision
    copy.write_text(MINE.replace("def pair(split):\n", "def pair(split):\n    split = str(split)\n"))
    assert dataset_info(f"{copy}:pair").revision != dataset_info(f"{mine}:pair").revision
    (tmp_path / "own_points.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert len(load_dataset("own_points:pair")) == 4
    sys.modules.pop("own_points", None)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("raises", "KeyError.*return None for a split"),
        ("random", "gives other images at every call"),
        ("short", "4 images and 1 labels"),
        ("outside", r"images must lie in \[0, 1\]"),
        ("classes", "must be above the label"),
        ("nothing", "gives no split"),
        ("odd", r"must return \(x, y\)"),
        ("pear", "did you mean pair"),
    ],
)
def test_functions_that_cannot_be_used(mine, function, words):
    refused(words, f"{mine}:{function}")


def test_wrong_names(tmp_path):
    refused("there is no file", f"{tmp_path}/none.py:data")
    refused("unknown data set", "no_such_package:data")


# Hugging Face

datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")


def write_hub(folder, splits, shape=(6, 5, 3), **more):
    """A data set in the hub's layout; the pictures of every split."""
    features = datasets.Features(
        {"img": datasets.Image(), "fine": datasets.ClassLabel(names=["a", "b", "c"])}
        | {name: datasets.Value("int64") for name in more}
    )
    pictures = {}
    for split, n in splits.items():
        pictures[split] = RNG.integers(0, 256, (n, *shape), np.uint8)
        columns = {"img": list(pictures[split]), "fine": [i % 3 for i in range(n)]}
        columns |= {name: [value] * n for name, value in more.items()}
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_dict(columns, features=features)
        table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    return pictures


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_local_set_of_the_hubs_format(tmp_path, cache):
    folder = tmp_path / "mine"
    pictures = write_hub(folder, {"train": 20, "test": 4})
    name = f"hf:{folder}"
    info, ours = dataset_info(name), load_dataset(name)
    assert (info.num_classes, info.shape, info.splits) == (3, (3, 6, 5), {"train": 18, "validation": 2, "test": 4})
    assert np.array_equal((ours.x * 255).round().byte().permute(0, 2, 3, 1).numpy(), pictures["test"])
    assert ours.y.tolist() == [0, 1, 2, 0] == labels_of(name, "test")
    parts = [load_dataset(name, split) for split in ("train", "validation")]
    found = torch.cat([p.x for p in parts])
    assert {x.numpy().tobytes() for x in found} == {
        (p.transpose(2, 0, 1).astype(np.float32) / np.float32(255)).tobytes() for p in pictures["train"]
    }
    assert portable(name) == "hf:mine"
    assert load_dataset(f"{name}?crop=4").x.shape == (4, 3, 4, 4)


def test_grey_pictures_named_columns_and_saved_tables(tmp_path, cache):
    pictures = write_hub(tmp_path / "grey", {"test": 3, "validation": 2}, shape=(4, 4), other=1)
    ours = load_dataset(f"hf:{tmp_path}/grey")
    assert np.array_equal((ours.x[:, 0] * 255).round().byte().numpy(), pictures["test"])
    by_name = f"hf:{tmp_path}/grey?label=other&image=img"
    assert (load_dataset(by_name).y.tolist(), dataset_info(by_name).num_classes) == ([1, 1, 1], 2)
    datasets.load_dataset(str(tmp_path / "grey")).save_to_disk(str(tmp_path / "saved"))
    saved = load_dataset(f"hf:{tmp_path}/saved", "validation")
    assert torch.equal(saved.x, load_dataset(f"hf:{tmp_path}/grey", "validation").x)


def test_sets_that_cannot_be_used(tmp_path, cache, monkeypatch):
    write_hub(tmp_path / "mine", {"test": 3, "other": 1})
    refused("has no train split", f"hf:{tmp_path}/mine", "train")
    refused(r"unknown column .* \"image\"; did you mean img", f"hf:{tmp_path}/mine?image=image")
    refused("holds no pictures", f"hf:{tmp_path}/mine?image=fine")
    refused("there is no folder", f"hf:{tmp_path}/none")
    refused("a folder has no revisions", f"hf:{tmp_path}/mine@v1")
    monkeypatch.chdir(tmp_path)
    refused("write hf:./mine", "hf:mine")
    (tmp_path / "broken" / "data").mkdir(parents=True)
    (tmp_path / "broken" / "data" / "test.parquet").write_bytes(b"PAR1 no more")
    refused("cannot be loaded", f"hf:{tmp_path}/broken")
    table = datasets.Dataset.from_dict({"text": ["a"], "label": [0]})
    table.to_parquet(str(tmp_path / "broken" / "data" / "test.parquet"))
    refused(r"has 0 image columns; add \?image=<column>, one of: text \(Value\)", f"hf:{tmp_path}/broken")


def test_the_extra_is_named_when_it_is_absent(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "datasets" else find(n, *a))
    refused("uv sync --extra hf", "hf:owner/name")


def test_without_network_the_cache_is_used_or_one_line_says_so(tmp_path, cache, monkeypatch):
    import huggingface_hub.constants

    for module in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    refused("hf:owner/points cannot be loaded", "hf:owner/points")
    write_hub(tmp_path / "points", {"test": 3})
    expected = load_dataset(f"hf:{tmp_path}/points")
    # What `datasets` leaves in its cache when it has fetched the set from the hub at a commit.
    fetched = next(cache.glob("parquet/*/*/*/points-test.arrow"), None) or next(cache.rglob("*-test.arrow"))
    target = cache / "owner___points" / "default" / "0.0.0" / ("c0ffee" + 34 * "0")
    target.parent.mkdir(parents=True)
    fetched.parent.rename(target)
    ours = load_dataset("hf:owner/points")
    assert ours.revision == "commit-c0ffee000000"
    assert torch.equal(ours.x, expected.x)
    refused("only revision c0ffee", "hf:owner/points@beef")
