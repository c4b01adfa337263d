"""Files of one's own: modules of the same names, and changes after a run."""

from __future__ import annotations

from pathlib import Path

from faults.catalogue import case
from faults.ground import Ground, Outcome

_NET = """
import torch
from beside import linear, shift


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = linear()
        self.eval()

    def forward(self, x):
        from later import turned
        return turned(self.inner(x), shift)


def go(view, x, y, *, threat):
    from helper import step
    return step(x, float(threat.eps))
"""


def _write(folder: Path, models: Path, shift: int, step: str, net: str = _NET) -> Path:
    """A folder with a defense, an attack and modules beside them."""
    folder.mkdir(exist_ok=True)
    (folder / "net.py").write_text(net)
    (folder / "beside.py").write_text(f"shift = {shift}\n" + models.read_text())
    (folder / "later.py").write_text("def turned(x, k):\n    return x.roll(k, 1)\n")
    (folder / "helper.py").write_text(f"def step(x, eps):\n    return {step}\n")
    return folder / "net.py"


def _defense(file: Path, label: str) -> str:
    return f'\n[[defense]]\nname = "{file}:Net"\nlabel = "{label}"\n'


def _attack(file: Path, label: str, on: str) -> str:
    return f'\n[[attack]]\nname = "{file}:go"\nlabel = "{label}"\non = "{on}"\n'


@case(
    "two folders with defenses, attacks and modules beside them, all of the same names",
    "each row shows the code of its own folder",
)
def same_names(ground: Ground) -> Outcome:
    from bench import load_results

    models = ground.base.folder / "models.py"
    a = _write(ground.tmp / "a", models, 0, "x")
    b = _write(ground.tmp / "b", models, 1, "x + eps * (0.5 - x).sign()")
    more = _defense(a, "a") + _defense(b, "b") + _attack(a, "still", "a") + _attack(b, "grey", "a")
    told = ground.run(ground.board(more), ground.tmp / "out", "--defense", "a", "b", "linear")
    assert told.code == 0, told.stderr
    frame = load_results(ground.tmp / "out").pivot_table(index="defense", columns="attack", values="margin")
    assert frame.loc["a", "none"] == frame.loc["linear", "none"] == frame.loc["a", "still"]
    assert frame.loc["b", "none"] < 0
    assert frame.loc["a", "grey"] < frame.loc["a", "none"]
    return Outcome(told, code=0)


@case(
    "modules beside a file that are called like libraries, and folders called bench and defenses",
    "the file's code imports its own, purebench and the libraries import theirs; clean accuracy is the same",
)
def names_of_libraries(ground: Ground) -> Outcome:
    from bench import load_results

    folder = ground.tmp / "user"
    for name in ("datasets", "pandas", "pyarrow", "safetensors"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("K = 1\n")
    for name in ("bench", "defenses"):
        (folder / name).mkdir()
        (folder / name / "of_mine.py").write_text("K = 1\n")
    lines = "import bench.of_mine, datasets, pandas, pyarrow, safetensors\nfrom defenses.of_mine import K\n"
    lines += "assert bench.of_mine.K == datasets.K == pandas.K == pyarrow.K == safetensors.K == K\n"
    (folder / "models.py").write_text(lines + (ground.base.folder / "models.py").read_text())
    board, out = ground.board(""), ground.tmp / "out"
    board.write_text(board.read_text().replace(str(ground.base.folder / "models.py"), str(folder / "models.py")))
    told = ground.run(board, out)
    clean = [load_results(path).query("attack == 'none'")["correct"] for path in (out, ground.base.reference)]
    assert clean[0].tolist() == clean[1].tolist()
    return Outcome(told, code=0)
