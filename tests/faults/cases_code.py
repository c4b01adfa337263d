"""Files of one's own: modules of the same names, and changes after a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from faults.catalogue import case
from faults.ground import Ground, Outcome, Told, finished, nothing_written, run_command

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


def _own(ground: Ground) -> tuple[Path, Path]:
    """A board with a defense of one's own, and its folder, on finished results."""
    folder = ground.tmp / "a"
    net = _NET.replace(
        "self.eval()", "self.scale = float(open(__file__[:-6] + 'scale.txt').read())\n        self.eval()"
    )
    net = net.replace("from later", "(lambda name: __import__(name))('la' + 'te')\n        from later")
    file = _write(folder, ground.base.folder / "models.py", 0, "x", net.replace("shift)", "shift) * self.scale"))
    (folder / "late.py").write_text("K = 1\n")
    (folder / "scale.txt").write_text("1.0")
    board = ground.board(_defense(file, "a"))
    assert ground.run(board, ground.tmp / "own", "--defense", "a").code == 0
    return board, folder


def _status(ground: Ground, board: Path) -> Told:
    return run_command("status", board, "--out", ground.tmp / "own")


@case(
    "a file that own code reads, a module beside it, or one that it imports by a computed name, edited after a run",
    "its cells count as not run, status names the file, and a run does them again and no others",
)
def edited(ground: Ground) -> Iterator[Outcome]:
    board, folder = _own(ground)
    changes = {"scale.txt": "-1.0", "late.py": "K = 2\n", "later.py": "def turned(x, k):\n    return -x.roll(k, 1)\n"}
    for name, text in changes.items():
        (folder / name).write_text(text)
        assert f"12 cells finished for an earlier {name}" in _status(ground, board).stdout
        before = finished(ground.tmp / "own")
        told = ground.run(board, ground.tmp / "own", "--defense", "a")
        assert f"12 cells finished for an earlier {name}" in told.stderr
        assert finished(ground.tmp / "own") != before
        yield Outcome(told, code=0)
        assert "a: 12 ok" in _status(ground, board).stdout


def _learning(ground: Ground, text: str) -> Path:
    """A board with a defense of one's own that turns its logits by a number it learns when called; finished."""
    models = ground.base.folder / "models.py"
    file = _write(
        ground.tmp / "a",
        models,
        0,
        "x",
        _NET.replace("shift)", f"shift + {text})").replace("\nimport", "\nimport os, ", 1),
    )
    board = ground.board(_defense(file, "a"))
    assert ground.run(board, ground.tmp / "own", "--defense", "a").code == 0
    return board


@case(
    "an environment variable that own code asks for, changed after a run",
    "its cells count as not run, and status names it",
)
def environment(ground: Ground) -> Outcome:
    ground.monkeypatch.setenv("TURN", "0")
    board = _learning(ground, 'int(os.environ["TURN"])')
    ground.monkeypatch.setenv("TURN", "1")
    assert "12 cells finished for an earlier $TURN" in _status(ground, board).stdout
    told = ground.run(board, ground.tmp / "own", "--defense", "a")
    assert "a: 12 ok" in _status(ground, board).stdout
    return Outcome(told, code=0)


@case("a file more in a folder that own code lists", "its cells count as not run, and status names the folder")
def folder_listing(ground: Ground) -> Outcome:
    folder = ground.tmp / "turns"
    folder.mkdir()
    board = _learning(ground, f"len(os.listdir({str(folder)!r}))")
    (folder / "one").touch()
    assert "12 cells finished for an earlier turns" in _status(ground, board).stdout
    return Outcome(ground.run(board, ground.tmp / "own", "--defense", "a"), code=0)


@case("own code that starts a program while it is attacked", "nothing is resumed, and status says why")
def programs(ground: Ground) -> Outcome:
    board = _learning(ground, "len(__import__('subprocess').run(['true'], capture_output=True).stdout)")
    told = _status(ground, board)
    assert "not resumed" in told.stdout
    assert "starts a program" in told.stdout
    return Outcome(told, code=0)


@case("comments and docstrings of own code, edited after a run", "nothing is computed again")
def edited_without_effect(ground: Ground) -> Outcome:
    board, folder = _own(ground)
    before = finished(ground.tmp / "own")
    for name, text in (("later.py", "# a comment\n"), ("late.py", '"""A docstring."""\n'), ("net.py", "# more\n")):
        (folder / name).write_text(text + (folder / name).read_text())
    told = ground.run(board, ground.tmp / "own", "--defense", "a")
    assert finished(ground.tmp / "own") == before
    return Outcome(told, code=0)


@case(
    "a model with an attribute that cannot be hashed, as a lock, whose run is repeated",
    "nothing is resumed, and status says why; with --resume-anyway it is, and the table says so",
)
def unidentified(ground: Ground) -> Outcome:
    board, folder = _own(ground)
    shutil.rmtree(ground.tmp / "own")
    net = folder / "net.py"
    net.write_text(
        net.read_text().replace("self.eval()", "self.lock = __import__('threading').Lock()\n        self.eval()")
    )
    out = ground.tmp / "own"
    ground.run(board, out, "--defense", "a")
    before = finished(out)
    assert "module.lock is a _thread.lock" in _status(ground, board).stdout
    ground.run(board, out, "--defense", "a", "--resume-anyway")
    assert finished(out) == before
    assert "§ a: resumed with --resume-anyway" in (out / "tables.txt").read_text()
    told = ground.run(board, out, "--defense", "a")
    assert not set(finished(out).values()) & set(before.values())
    return Outcome(told, code=0)


@case(
    "two repositories loaded by torch.hub, with modules of the same names",
    "each row shows the code of its own repository; an edited module is named by status",
)
def hub_repositories(ground: Ground) -> Outcome:
    from bench import load_results

    models, more = ground.base.folder / "models.py", ""
    for name, shift in (("a", 0), ("b", 1)):
        hub = _write(ground.tmp / f"hub_{name}", models, shift, "x").parent
        (hub / "hubconf.py").write_text("from net import Net\n\ndef mine():\n    return Net()\n")
        file = ground.tmp / f"{name}.py"
        text = f"import torch\n\ndef Net():\n    return torch.hub.load({str(hub)!r}, 'mine', source='local')\n"
        file.write_text(text)
        more += _defense(file, name)
    board, out = ground.board(more), ground.tmp / "own"
    told = ground.run(board, out, "--defense", "a", "b", "linear")
    clean = load_results(out).query("attack == 'none'").groupby("defense")["margin"].mean()
    assert clean["a"] == clean["linear"] > 0 > clean["b"]
    (ground.tmp / "hub_a" / "later.py").write_text("def turned(x, k):\n    return -x\n")
    assert "12 cells finished for an earlier later.py" in _status(ground, board).stdout
    return Outcome(told, code=0)


@case(
    "own code that replaces a function of torch, beside other defenses",
    "refused before any work, in one line that names the file and the function",
)
def replaces_a_function(ground: Ground) -> Outcome:
    file = ground.tmp / "mine.py"
    change = "import torch.nn.functional as F\nplain = F.linear\nF.linear = lambda x, w, b=None: -plain(x, w, b)\n"
    file.write_text(change + (ground.base.folder / "models.py").read_text() + "\n\nNet = linear\n")
    out = ground.tmp / "own"
    told = ground.forked(ground.board(_defense(file, "mine")), out)
    nothing_written(out)
    return Outcome(told, ("mine.py replaces torch.nn.functional.linear", "judged alone"))
