"""Test index lists: named, sampled, published, and from files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.board import subsets
from bench.board.indices import first_images, resolve
from defenses.utils.errors import UserError


def test_index_lists():
    assert resolve("all", 4).positions == (0, 1, 2, 3)
    assert resolve("first-2", 4).positions == (0, 1)
    assert resolve("first-4", 4).hash == resolve("all", 4).hash
    short, long = resolve("random-5-seed1", 100), resolve("random-20-seed1", 100)
    assert long.positions[:5] == short.positions
    assert len(set(long.positions)) == 20
    assert resolve("random-5-seed2", 100).positions != short.positions
    assert short.positions == (23, 97, 40, 33, 75)  # fixed for good


def test_index_files(tmp_path):
    (tmp_path / "mine.txt").write_text("# hard ones\n3\n1  # this too\n\n")
    (tmp_path / "mine.json").write_text(json.dumps([3, 1]))
    np.save(tmp_path / "mine.npy", np.array([3, 1]))
    lists = [resolve(str(tmp_path / f"mine.{end}"), 4) for end in ("txt", "json", "npy")]
    assert {(x.name, x.hash, x.positions) for x in lists} == {("mine", lists[0].hash, (3, 1))}
    assert lists[0].hash != resolve("all", 4).hash


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n4\n", "positions 0 to 3"),
        ("1\n1\n", "1 more than once"),
        ("3\n-1\n", "position -1; positions count from 0, none is negative"),
        ("", "bad.txt is empty; name at least one image"),
        ("# none\n", "is empty; name at least one image"),
        ("a\n", "cannot be read"),
    ],
)
def test_bad_index_files(tmp_path, text, words):
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(UserError, match=words) as error:
        resolve(str(tmp_path / "bad.txt"), 4)
    assert "\n" not in str(error.value)


def test_bad_index_names(tmp_path):
    for spec, words in (
        ("first-5", "has 4"),
        ("frist-2", "did you mean first-N"),
        ("first-0", "empty"),
        (str(tmp_path / "no.txt"), "missing"),
    ):
        with pytest.raises(UserError, match=words):
            resolve(spec, 4)
    (tmp_path / "bad.json").write_text("[1.5]")
    with pytest.raises(UserError, match="no whole number"):
        resolve(str(tmp_path / "bad.json"), 4)
    np.save(tmp_path / "bad.npy", np.array([None], dtype=object), allow_pickle=True)  # a pickle inside
    with pytest.raises(UserError, match="cannot be read"):
        resolve(str(tmp_path / "bad.npy"), 4)


def test_empty_files_of_every_kind(tmp_path):
    (tmp_path / "a.npy").touch()
    (tmp_path / "b.json").touch()
    (tmp_path / "c.json").write_text("[]")
    np.save(tmp_path / "d.npy", np.array([], dtype=np.int64))
    for name in ("a.npy", "b.json", "c.json", "d.npy"):
        with pytest.raises(UserError, match=f'{name}"? is empty; name at least one image'):
            resolve(str(tmp_path / name), 4)


def test_the_first_images():
    assert (first_images(None), first_images(3), first_images(np.int64(3))) == ("all", "first-3", "first-3")
    for n in (0, -1, 2.5, "3", True):
        with pytest.raises(UserError, match=r"n_examples is .*; it must be a whole number, at least 1"):
            first_images(n)
    with pytest.raises(UserError, match='"first-5" wants 5 images; the split has 4'):
        resolve(first_images(5), 4)


LABELS = [0] * 50 + [1] * 30 + [2] * 2


def stratified(spec, labels=LABELS):
    return resolve(spec, len(labels), labels=lambda: labels).positions


def test_stratified_lists():
    nine, thirty, every = (stratified(f"stratified-{n}-seed1") for n in (9, 30, 82))
    assert thirty[:9] == nine
    assert every[:30] == thirty
    assert sorted(every) == list(range(82))
    assert [LABELS[i] for i in nine].count(2) == 2  # all there are
    assert abs(sum(LABELS[i] == 0 for i in thirty) - sum(LABELS[i] == 1 for i in thirty)) <= 1
    assert sorted(LABELS[i] for i in nine[:3]) == [0, 1, 2]
    assert nine != stratified("stratified-9-seed2")
    assert nine == (71, 47, 81, 23, 79, 80, 38, 55, 8)  # fixed for good


def test_stratified_lists_of_a_board(tmp_path):
    from boards import BOARD, write_board

    from bench.board.load import load_board
    from defenses.data.dataset import load_dataset

    board = load_board(write_board(tmp_path, BOARD.replace("first-60", "stratified-20-seed0")))
    assert {(c.data.indices, c.data.stop - c.data.start) for c in board.cells()} == {("stratified-20-seed0", 20)}
    y = load_dataset("digits").y
    at = resolve("stratified-20-seed0", 500, labels=y.tolist)
    assert y[list(at.positions)].bincount().tolist() == [2] * 10
    assert {c.data.indices_hash for c in board.cells()} == {at.hash}
    with pytest.raises(UserError, match="needs the labels"):
        resolve("stratified-2-seed0", 4)


def test_published_subsets():
    croce = resolve("croce-2022", 10000, dataset="cifar10")
    assert croce.hash == resolve("first-1000", 10000).hash
    assert resolve("robustbench", 5000, dataset="imagenet/Crop288").hash == resolve("all", 5000).hash
    for dataset, size in (("cifar10", 10000), ("svhn", 26032)):
        drawn = np.random.RandomState(0).choice(size, 512, replace=False)
        assert resolve("lee-kim-2023", size, dataset=dataset).positions == tuple(drawn.tolist())
    for spec, dataset, split in (("lee-kim-2023", "mnist", "test"), ("croce-2022", "cifar10", "train")):
        with pytest.raises(UserError, match=f"not for {split} of {dataset}"):
            resolve(spec, 10000, dataset=dataset, split=split)
    with pytest.raises(UserError, match="did you mean lee-kim-2023"):
        resolve("lee-kim", 10)
    assert all(s.source for s in subsets.published())
