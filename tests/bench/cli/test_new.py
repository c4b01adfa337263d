"""`purebench new board`: a board that runs as it stands, and whose examples work when they are switched on."""

import re
import tomllib

import numpy as np
import pytest
from boards import MODELS, ROOT, purebench_here

from bench.board.load import load_board
from defenses.data.dataset import load_dataset


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = purebench_here("new", "board", "mine.toml")
    assert told.returncode == 0, told.stderr
    return tmp_path / "mine.toml"


def switched_on(text):
    """The board with its examples."""
    return re.sub(r"(?m)^#(?=\S)", "", text)


def test_it_is_planned_as_it_stands(board):
    plan = purebench_here("plan", "mine.toml")
    assert plan.returncode == 0, plan.stderr
    rows = [line.split(" | ")[:4] for line in plan.stdout.splitlines() if " | " in line]
    assert {row[0] for row in rows} == {"Linf 1/10", "Linf 1/5"}
    assert ["Linf 1/5", "adp, 2 runs", "foolbox:LinfPGD", "bpda, 8 EOT x 1 run"] in rows
    assert ["Linf 1/5", "adp, 2 runs", "transfer", "blind"] in rows
    assert load_board("mine.toml").name == "mine"


def test_its_examples_of_own_defenses_and_given_images_work(board, tmp_path):
    (tmp_path / "mine.py").write_text(MODELS + "\n\nNet = linear\n")
    data = load_dataset("digits")
    np.savez(tmp_path / "x_adv.npz", x_adv=data.x[:50].numpy(), index=np.arange(50), y=data.y[:50].numpy())
    text = re.sub(r"(?m)^preset = .*\n", "", switched_on(board.read_text()))
    board.write_text(text)
    found = load_board("mine.toml")
    assert [d.label for d in found.defenses] == ["undefended", "adp, 2 runs", "mine"]
    assert found.attacks[-1].label == "theirs"


def test_its_example_of_a_preset_works(board):
    raw = tomllib.loads(switched_on(board.read_text()))
    kept = [
        part for part in re.split(r"(?m)^(?=\[)", board.read_text()) if not part.startswith(("[[attack", "[verdict"))
    ]
    board.write_text(re.sub(r"(?m)^nulls.*\n", "", "".join(kept)).replace("#preset", "preset"))
    assert load_board("mine.toml").preset.name == raw["preset"] == "standard"


@pytest.mark.parametrize(("file", "words"), [("mine.toml", "mine.toml exists"), ("mine", "new board mine.toml")])
def test_nothing_is_overwritten(board, file, words):
    board.write_text("# mine\n")
    told = purebench_here("new", "board", file)
    assert (told.returncode, told.stdout) == (2, "")
    assert words in told.stderr
    assert board.read_text() == "# mine\n"
    assert sorted(p.name for p in board.parent.iterdir()) == ["mine.toml"]


def test_the_default_name_and_new_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert purebench_here("new", "board").returncode == 0
    assert purebench_here("new", "board", "boards/first.toml").returncode == 0
    template = (ROOT / "bench/examples/board.toml").read_bytes()
    assert (tmp_path / "board.toml").read_bytes() == (tmp_path / "boards/first.toml").read_bytes() == template


def test_a_folder_that_cannot_be_written_to_has_a_remedy(board):
    told = purebench_here("new", "board", "mine.toml/other.toml")
    assert told.returncode == 2
    assert told.stderr.endswith(": name a file in another folder, as ~/other.toml\n")
