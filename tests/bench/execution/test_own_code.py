"""Code of one's own on boards: two folders with modules of the same names."""

import textwrap

import pytest
from boards import purebench, purebench_here

from bench import load_results
from defenses.data.dataset import dataset_info

NET = """
import torch
from models_of_mine import shift

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.eval()
    def forward(self, x):
        from linear import layer
        return layer()(x).roll(shift(), 1)
"""
LINEAR = """
import torch
def layer():
    from defenses.data import load_dataset
    train = load_dataset("digits", "train")
    means = torch.stack([train.x[train.y == c].mean(0).flatten() for c in range(10)])
    return lambda x: 20 * x.flatten(1) @ means.T - 10 * means.square().sum(1)
"""
ATTACK = """
def go(view, x, y, *, threat):
    from helper import step
    return step(x, float(threat.eps))
"""
BOARD = """
name = "own"
dataset = "digits"
indices = "first-40"
block = 20
[threat]
norm = "Linf"
eps = "2/5"
[[defense]]
name = "{a}/net.py:Net"
label = "a"
[[defense]]
name = "{b}/net.py:Net"
label = "b"
[[attack]]
name = "{a}/attack.py:go"
label = "still"
[[attack]]
name = "{b}/attack.py:go"
label = "grey"
"""


@pytest.fixture
def two(tmp_path):
    """Folders a and b: B's network answers the next class, A's attack does nothing, B's makes images greyer."""
    for name, shift, step in (("a", 0, "x"), ("b", 1, "x + eps * (0.5 - x).sign()")):
        files = {"net": NET, "linear": LINEAR, "attack": ATTACK}
        files["models_of_mine"] = f"def shift():\n    return {shift}\n"
        files["helper"] = f"def step(x, eps):\n    return {step}\n"
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / f"{file}.py").write_text(text)
    (tmp_path / "own.toml").write_text(BOARD.format(a=tmp_path / "a", b=tmp_path / "b"))
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_each_row_shows_the_code_of_its_own_folder(two, workers):
    done = purebench_here("run", two / "own.toml", "--out", two / "out", "--workers", workers)
    assert done.returncode == 0, done.stderr
    frame = load_results(two / "out").pivot_table(index="defense", columns="attack", values="accuracy")
    assert frame.loc["a", "none"] > 0.8
    assert frame.loc["b", "none"] < 0.2
    assert frame.loc["a", "still"] == frame.loc["a", "none"]
    assert frame.loc["a", "grey"] < frame.loc["a", "none"]
    assert purebench_here("status", two / "own.toml", "--out", two / "out").stdout.count("8 ok") == 2


def test_data_of_two_folders(tmp_path):
    for name, value in (("a", 0.25), ("b", 0.75)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.py").write_text(
            "def load(split):\n    from values import x\n    return (x(), [0, 1]) if split == 'test' else None\n"
        )
        (tmp_path / name / "values.py").write_text(
            f"import numpy as np\ndef x():\n    return np.full((2, 1, 8, 8), {value}, np.float32)\n"
        )
    revisions = [dataset_info(f"{tmp_path}/{name}/data.py:load").revision for name in "aba"]
    assert revisions[0] == revisions[2] != revisions[1]


SHADOWS = {
    "defenses/__init__.py": "from defenses.core.defense import Classifier\n",
    "defenses/mine.py": "SHIFT = 0\n",
    "datasets.py": "raise RuntimeError('the harness imports a module of the user')\n",
    "pandas.py": "raise RuntimeError('the harness imports a module of the user')\n",
    "safetensors/__init__.py": "raise RuntimeError('the harness imports a module of the user')\n",
}


@pytest.mark.parametrize("name", ["net.py:Net", "net:Net"])
def test_a_repository_with_folders_called_like_packages(two, monkeypatch, name):
    folder = two / "a"
    for path, text in SHADOWS.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    (folder / "models_of_mine.py").write_text("def shift():\n    from defenses.mine import SHIFT\n    return SHIFT\n")
    board = BOARD[: BOARD.index('[[defense]]\nname = "{b}')] + '[[attack]]\nname = "attack:go"\nlabel = "still"\n'
    (folder / "own.toml").write_text(textwrap.dedent(board).replace("{a}/net.py:Net", name))
    done = purebench("run", "own.toml", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    frame = load_results(folder / "out").groupby("attack")["accuracy"].mean()
    assert frame["still"] == frame["none"] > 0.8
