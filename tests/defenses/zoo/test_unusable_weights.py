"""Weights that cannot be used are refused, and nothing is written."""

import hashlib
import json
import shutil

import pytest

from bench.board.load import load_board
from bench.execution.options import Options
from bench.execution.run_board import run_board
from defenses.utils.errors import UserError
from defenses.zoo.weight_paths import find_weights

BOARD = """
dataset = "digits"
indices = "first-20"
[threat]
norm = "Linf"
eps = "1/10"
[[defense]]
name = "undefended"
[[attack]]
name = "foolbox:LinfFastGradientAttack"
"""


@pytest.fixture
def own(tmp_path):
    """(board file, options, weights file) of weights in a folder of one's own."""
    source = find_weights("undefended", "digits")
    folder = tmp_path / "weights" / "digits"
    folder.mkdir(parents=True)
    for ending in (".safetensors", ".json"):
        shutil.copy(source.with_suffix(ending), folder)
    path = tmp_path / "own.toml"
    path.write_text(BOARD)
    return path, Options(weights_root=tmp_path / "weights", workers=0, quiet=True), folder / source.name


def reseal(file, raw):
    """Other contents, with a description that says they are meant."""
    file.write_bytes(raw)
    side = json.loads(file.with_suffix(".json").read_text())
    side.pop("sum", None)
    file.with_suffix(".json").write_text(json.dumps(side | {"sha256": hashlib.sha256(raw).hexdigest()}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:1000]), "is damaged .* purebench train undefended --dataset digits"),
        (lambda f: f.write_bytes(f.read_bytes()[:-1] + b"?"), "is damaged"),
        (lambda f: f.with_suffix(".json").write_text("{"), "cannot be read"),
        (lambda f: reseal(f, b"\xff" * 1000), "is no safetensors file"),
        (lambda f: reseal(f, f.read_bytes()[:-100]), "is no safetensors file"),
        (lambda f: reseal(f, f.read_bytes()[:-1] + b"?"), "changed while the board was read"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(own, damage, words, tmp_path):
    path, options, file = own
    board = load_board(path, weights_root=options.weights_root)
    damage(file)
    with pytest.raises(UserError, match=words) as caught:
        run_board(board, tmp_path / "out", options)
    assert "\n" not in str(caught.value)
    assert [p for p in tmp_path.rglob("out/**/*") if p.is_file()] == []


def test_weights_that_are_gone_are_refused(own, monkeypatch, tmp_path):
    path, options, file = own
    text = path.read_text().replace('name = "undefended"', 'name = "undefended"\nseeds = [7]')
    path.write_text(text)
    for ending in (".safetensors", ".json"):
        shutil.copy(file.with_suffix(ending), file.with_name(f"undefended.seed7{ending}"))
    side = file.with_name("undefended.seed7.json")
    content = json.loads(side.read_text())
    content.pop("sum", None)
    content["recipe"]["seed"] = 7
    side.write_text(json.dumps(content))
    board = load_board(path, weights_root=options.weights_root)
    side.with_suffix(".safetensors").unlink()
    with pytest.raises(UserError, match='no weights of "undefended" with training seed 7'):
        run_board(board, tmp_path / "out", options)
