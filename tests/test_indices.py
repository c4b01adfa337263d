"""Index lists: named, fixed, and from files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.indices import resolve
from defenses.errors import UserError


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
        ("-1\n", "position -1"),
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
