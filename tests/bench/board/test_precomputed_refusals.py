"""Test that `purebench judge` refuses bad files in one line, writes nothing and executes no pickle."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from boards import purebench_here, write_board
from judging import X, judge, refused


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Return the folder of the models of a board that was not run."""
    folder = tmp_path_factory.mktemp("board")
    write_board(folder)
    return (folder,)


class Boom:
    def __reduce__(self):
        return (open, ("executed", "w"))


def _truncated() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x_adv=np.zeros((20, 1, 8, 8), np.float32))
    return buffer.getvalue()[:-300]


def _flipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x_adv=np.zeros((20, 1, 8, 8), np.float32))
    raw = bytearray(buffer.getvalue())
    raw[len(raw) // 2] ^= 255
    return bytes(raw)


def _empty_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer)
    return buffer.getvalue()


NAN = np.where(np.arange(20).reshape(-1, 1, 1, 1) == 4, np.float32(np.nan), X)
BAD = {
    "no images": ({"z": X}, ["name its images x_adv"]),
    "wrong shape": ({"x_adv": X[:, :, :4]}, ["1x4x8", "1x8x8"]),
    "flat": ({"x_adv": X.reshape(20, 64)}, ["[20, 64]", "[N, C, H, W]"]),
    "empty": ({"x_adv": X[:0]}, ["holds no image"]),
    "whole numbers": ({"x_adv": X.astype(int)}, ["int64", "uint8"]),
    "range": ({"x_adv": X * 3}, ["1.5", "[0, 1]"]),
    "nan": ({"x_adv": NAN}, ["not finite"]),
    "labels": ({"x_adv": X, "y": np.full(20, 3)}, ["y of image", "is a"]),
    "labels' number": ({"x_adv": X, "y": np.full(19, 3)}, ["20 images and 19 values in y"]),
    "labels' kind": ({"x_adv": X, "y": np.full(20, 0.5)}, ["whole numbers"]),
    "twice": ({"x_adv": X, "index": [*range(19), 0]}, ["image 0 more than once"]),
    "outside": ({"x_adv": X, "index": range(481, 501)}, ["image 500", "0 to 499"]),
    "negative": ({"x_adv": X, "index": range(-1, 19)}, ["index has image -1; positions count from 0"]),
    "whole index": ({"x_adv": X, "index": np.arange(20) / 2}, ["index is float64 [20]; positions must be whole"]),
    "nothing": (_empty_archive(), ["holds no array; name its images x_adv"]),
    "objects": ({"x_adv": np.array([Boom()] * 20, dtype=object)}, ["damaged, or holds more than plain arrays"]),
    "truncated": (_truncated(), ["damaged"]),
    "flipped": (_flipped(), ["damaged"]),
    "no archive": (b"x_adv", ["damaged"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(board, tmp_path, monkeypatch, case):
    content, words = BAD[case]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    before = sorted(tmp_path.rglob("*"))
    refused(judge(board, path, "--out", tmp_path / "out"), "bad.npz", *words)
    assert sorted(tmp_path.rglob("*")) == before


def test_pickles_are_not_executed(board, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x_adv": Boom()}, "bad.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"x_adv": Boom()}))
    with zipfile.ZipFile("bad.npz", "w") as archive:
        archive.writestr("x_adv.npy", pickle.dumps(Boom()))
    for name, words in (("bad.pt", "or holds more"), ("raw.pt", "or holds more"), ("bad.npz", "store uint8")):
        refused(judge(board, Path(name), "--out", tmp_path / "out"), name, words)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.npz"], ["missing.npz is missing"]),
        (["good.npz", "--indices", "first-30"], ["20 images where first-30 names 30"]),
        (["good.npz", "--indices", "first-3000"], ["first-3000", "500"]),
        (["good.npz", "--dataset", "digit"], ['unknown data set "digit"']),
        (["good.npz", "--norm", "Lin"], ['unknown norm "Lin"', "Linf"]),
        (["good.npz", "--clean", "good.npz"], ["image 0 of good.npz is not in the test split"]),
        (["good.npz", "--clean", "good.npz", "--indices", "all"], ["named twice"]),
        (["good.npz", "--split", "tset"], ["tset"]),
        (["good.npz", "--label", "a", "b"], ["1 sets of images and 2 labels"]),
        (["good.npz", "--label", "worst case"], ["taken by a row"]),
        (["good.npz", "good.npz"], ["occurs twice"]),
        (["good.npz", "good.npz", "--label", "a", "b"], ["is the same as"]),
        (["good.npz", "few.npz"], ["few.npz lacks image 10"]),
        (["good.txt"], ["good.txt", ".npz"]),
    ],
)
def test_bad_arguments(board, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    np.savez("good.npz", x_adv=X)
    np.savez("few.npz", x_adv=X[:10])
    Path("good.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    refused(judge(board, *arguments, "--out", tmp_path / "out"), *words)
    assert sorted(tmp_path.rglob("*")) == before


def test_no_eps_and_an_unknown_defense(tmp_path):
    np.savez(tmp_path / "good.npz", x_adv=X)
    out = tmp_path / "out"
    refused(purebench_here("judge", tmp_path / "good.npz", "--defense", "adp", "--out", out), "--eps 8/255")
    done = purebench_here("judge", tmp_path / "good.npz", "--defense", "adp", "--eps", "2", "--out", out)
    refused(done, "under Linf, 1 reaches them all", "8/255")
    done = purebench_here("judge", tmp_path / "good.npz", "--defense", "apd", "--eps", "1/5", "--out", out)
    refused(done, 'unknown defense "apd"', "adp")
    assert not out.exists()
