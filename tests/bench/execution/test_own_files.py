"""Results of one's own code after a change of its files: run again where they count, kept where they do not."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from boards import purebench_here
from faults.ground import sign

from bench import load_results

NET = '''
import json
import os
import types
import importlib
import torch
from lib.prep import prep

HERE = os.path.dirname(os.path.abspath(__file__))


class Holder:
    def __init__(self, net):
        self.net = net


class Net(torch.nn.Module):
    """A network."""

    def __init__(self):
        super().__init__()
        with open(os.path.join(HERE, "cfg.json")) as file:
            self.cfg = types.SimpleNamespace(**json.load(file))
        self.holder = Holder(torch.load(os.path.join(HERE, "means.pt")))
        self.eval()

    def forward(self, x):
        # a comment
        late = importlib.import_module("la" + "te")
        means = self.holder.net
        return late.turned(20 * prep(x).flatten(1) @ means.T - 10 * means.square().sum(1), self.cfg.k)


class Unused(Net):
    k = 1
'''
ATTACK = """
import os
import numpy as np
import safetensors.torch

HERE = os.path.dirname(os.path.abspath(__file__))


def go(view, x, y, *, threat):
    scale = safetensors.torch.load_file(os.path.join(HERE, "scale.safetensors"))["scale"]
    delta = np.load(os.path.join(HERE, "delta.npy"))
    import torch
    return (x + float(threat.eps) * scale * torch.from_numpy(delta)).clamp(0, 1)
"""
DATA = """
import os


def load(split):
    import pyarrow.parquet as pq
    if split != "test":
        return None
    table = pq.read_table(os.path.join(os.path.dirname(os.path.abspath(__file__)), "data.parquet"))
    import numpy as np
    return np.stack(table["x"].to_numpy()).reshape(-1, 1, 8, 8).astype("float32"), table["y"].to_numpy()
"""
BOARD = """
name = "own"
dataset = "{folder}/data.py:load"
indices = "first-20"
block = 10
[threat]
norm = "Linf"
eps = "1/10"
[[defense]]
name = "{folder}/net.py:Net"
label = "mine"
[[attack]]
name = "{folder}/attack.py:go"
label = "delta"
"""


def write_data(path, shift=0):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from defenses.data import load_dataset

    test = load_dataset("digits", "test")
    images = list(test.x[:20].flatten(1).numpy())
    pq.write_table(pa.table({"x": images, "y": (test.y[:20].numpy() + shift) % 10}), path)


def write_scale(path, value):
    from safetensors.torch import save_file

    save_file({"scale": torch.tensor(value)}, path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder with code of one's own, and the results of its board."""
    from defenses.data import load_dataset

    folder = tmp_path_factory.mktemp("own")
    train = load_dataset("digits", "train")
    torch.save(torch.stack([train.x[train.y == c].mean(0).flatten() for c in range(10)]), folder / "means.pt")
    files = {"net.py": NET, "attack.py": ATTACK, "data.py": DATA, "lib/__init__.py": "", "own.toml": BOARD}
    files |= {"lib/prep.py": "def prep(x):\n    return x\n", "late.py": "def turned(z, k):\n    return z.roll(k, 1)\n"}
    files["cfg.json"] = '{"k": 0}'
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    np.save(folder / "delta.npy", np.zeros((8, 8), np.float32))
    write_scale(folder / "scale.safetensors", 1.0)
    write_data(folder / "data.parquet")
    command(folder, "run")
    return folder


@pytest.fixture
def own(done, tmp_path):
    return shutil.copytree(done, tmp_path / "own")


def command(folder, name, *more, out="out"):
    board = folder / "own.toml"
    board.write_text(BOARD.format(folder=folder))
    here = ("--workers", 0) if name == "run" else ()
    told = purebench_here(name, board, "--out", folder / out, *here, *more)
    assert told.returncode == 0, told.stderr
    return told


def replace(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


CHANGES = {
    "net.py": lambda f: replace(f / "net.py", "self.cfg.k)", "self.cfg.k + 1)"),
    "prep.py": lambda f: replace(f / "lib/prep.py", "return x", "return 1 - x"),
    "late.py": lambda f: replace(f / "late.py", "z.roll(k, 1)", "-z"),
    "cfg.json": lambda f: (f / "cfg.json").write_text('{"k": 1}'),
    "means.pt": lambda f: torch.save(-torch.load(f / "means.pt"), f / "means.pt"),
    "attack.py": lambda f: replace(f / "attack.py", "float(threat.eps)", "-float(threat.eps)"),
    "delta.npy": lambda f: np.save(f / "delta.npy", np.ones((8, 8), np.float32)),
    "scale.safetensors": lambda f: write_scale(f / "scale.safetensors", 0.5),
    "data.parquet": lambda f: write_data(f / "data.parquet", 1),
}


@pytest.mark.parametrize("file", CHANGES)
def test_what_a_file_changed_is_run_again(own, file):
    CHANGES[file](own)
    count = 2 if file in ("attack.py", "delta.npy", "scale.safetensors") else 6
    line = f"{count} cells finished for an earlier {file}"
    for name in ("status", "plan"):
        told = command(own, name)
        assert line in told.stdout.splitlines(), told.stdout
    assert f"{6 - count} of 6 cells finished" in command(own, "status").stdout
    told = command(own, "run")
    assert f"note: {line}" in told.stderr.splitlines()
    command(own, "run", out="fresh")
    rerun, fresh = (load_results(own / name).drop(columns="seconds") for name in ("out", "fresh"))
    assert rerun.equals(fresh)
    assert "6 of 6 cells finished" in command(own, "status").stdout


@pytest.mark.parametrize("file", ["net.py", "late.py", "cfg.json", "attack.py"])
def test_the_status_of_a_folder_names_what_has_changed(own, monkeypatch, file):
    told = purebench_here("status", own / "out").stdout
    assert "which is not in the current folder" in told
    monkeypatch.chdir(own)
    told = purebench_here("status", own / "out").stdout
    assert "6 of 6 cells" in told
    assert "finished for" not in told
    CHANGES[file](own)
    told = purebench_here("status", own / "out").stdout
    count = 2 if file == "attack.py" else 6
    assert f"{count} cells finished for an earlier {file}" in told.splitlines()
    assert f"{6 - count} of 6 cells" in told


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("net.py", "# a comment", "# another one"),
        ("net.py", '"""A network."""', '"""The network."""'),
        ("lib/prep.py", "def prep(x):", "# new\ndef prep(x):"),
        ("late.py", "def turned", "# new\ndef turned"),
        ("attack.py", "def go", "class Unused:\n    k = 2\n\n\ndef go"),
        ("data.py", "def load", "# data\ndef load"),
    ],
)
def test_what_changes_nothing_is_kept(own, name, old, new):
    replace(own / name, old, new)
    told = command(own, "status").stdout
    assert "6 of 6 cells finished" in told
    assert "earlier" not in told
    runs, marked = load_runs(own), "†" in (own / "out/tables.txt").read_text()
    command(own, "run")
    assert load_runs(own) == runs
    assert ("†" in (own / "out/tables.txt").read_text()) == marked


def with_turn(own, text):
    """Let the model turn its logits by a number that it learns elsewhere, when it is called."""
    replace(own / "net.py", "self.cfg.k)", f"self.cfg.k + ({text}))")
    command(own, "run")
    assert "6 of 6 cells finished" in command(own, "status").stdout


@pytest.mark.parametrize(
    "text",
    [
        *('int(os.environ["TURN"])', 'int(os.getenv("TURN", "0"))', '"TURN" in os.environ'),
        *('int(os.environb[b"TURN"])', 'int(os.getenvb(b"TURN", b"0"))'),
    ],
)
def test_an_environment_variable_that_the_code_reads_counts(own, monkeypatch, text):
    monkeypatch.setenv("TURN", "0")
    with_turn(own, text)
    if "in os" in text:
        monkeypatch.delenv("TURN")
    else:
        monkeypatch.setenv("TURN", "1")
    assert "6 cells finished for an earlier $TURN" in command(own, "status").stdout.splitlines()
    monkeypatch.setenv("OTHER", "1")
    monkeypatch.setenv("TURN", "0")
    assert "6 of 6 cells finished" in command(own, "status").stdout


def test_code_that_copies_all_variables_is_not_resumed(own, monkeypatch):
    for i in range(30):
        monkeypatch.setenv(f"VARIABLE_{i}", "")
    replace(own / "net.py", "self.eval()", "self.turn = len(dict(os.environ))\n        self.eval()")
    command(own, "run")
    told = command(own, "status").stdout
    assert "not resumed" in told
    assert "reads all environment variables" in told


@pytest.mark.parametrize("text", ["len(os.listdir({}))", "len(list(os.scandir({})))", "sum(1 for _ in os.walk({}))"])
def test_a_folder_that_the_code_lists_counts(own, text):
    (own / "turns").mkdir()
    with_turn(own, text.format("os.path.join(HERE, 'turns')"))
    (own / "turns/one").mkdir()
    assert "6 cells finished for an earlier turns" in command(own, "status").stdout.splitlines()


@pytest.mark.parametrize(
    "text", ["os.path.exists({})", "__import__('pathlib').Path({}).exists()", "os.path.isfile({})"]
)
def test_a_file_that_the_code_asks_for_counts_when_it_appears(own, text):
    """As in: load the checkpoint if there is one."""
    with_turn(own, text.format("os.path.join(HERE, 'flag')"))
    (own / "flag").touch()
    assert "6 cells finished for an earlier flag" in command(own, "status").stdout.splitlines()
    command(own, "run")
    assert "6 of 6 cells finished" in command(own, "status").stdout


def test_a_file_of_the_same_size_and_time_but_other_content_counts(own):
    stat = (own / "cfg.json").stat()
    (own / "cfg.json").write_text('{"k": 1}')
    os.utime(own / "cfg.json", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "6 cells finished for an earlier cfg.json" in command(own, "status").stdout.splitlines()


@pytest.mark.parametrize("load", ["np.load(p, allow_pickle=True).item()", "joblib.load(p)"])
def test_classes_that_only_a_pickle_names_count(load):
    from defenses.utils.source_code import hashes

    code = f"import joblib\nimport helper\nclass Net:\n    def __init__(self, p):\n        self.net = {load}\n"
    texts = [{"net.py": code, "helper.py": f"class Prep:\n    k = {k}\n"} for k in (1, 2)]
    one, other = ({name: text.encode() for name, text in files.items()} for files in texts)
    assert hashes(one, ["Net"]) != hashes(other, ["Net"])


def test_code_that_reads_data_in_processes_of_its_own_is_not_resumed(own):
    loader = "sum(len(b) for b in torch.utils.data.DataLoader([1, 2], num_workers=1))"
    replace(own / "net.py", "# a comment", loader)
    command(own, "run")
    told = command(own, "status").stdout
    assert "starts a process" in told, told


def test_results_without_a_list_are_finished(own):
    for part in (own / "out/parts").iterdir():
        lines = [json.loads(line) for line in (part / "cells.jsonl").read_text().splitlines()]
        assert all(line.pop("sources") for line in lines)
        (part / "cells.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
        sign(part)
    assert "6 of 6 cells finished" in command(own, "status").stdout


def test_a_model_that_cannot_be_identified_is_not_resumed(own):
    replace(own / "net.py", "self.eval()", "self.cfg.lock = __import__('threading').Lock()\n        self.eval()")
    command(own, "run", "--attack", "delta")
    told = command(own, "status").stdout
    assert (
        "6 cells of mine finished, but not resumed: it cannot be identified (module.cfg.lock is a _thread.lock)" in told
    )
    assert "0 of 6 cells finished" in told
    runs = set(load_runs(own))
    told = command(own, "run", "--resume-anyway")
    assert set(load_runs(own)) == runs
    assert "mine † §" in (own / "out/tables.txt").read_text()
    assert "§ mine: resumed with --resume-anyway" in (own / "out/tables.md").read_text()
    command(own, "run")
    assert not set(load_runs(own)) & runs


def load_runs(folder):
    from bench.analysis.results import load_cells

    return load_cells(folder / "out")["run"].tolist()


def test_frames_have_no_column_of_sources(own):
    from bench.analysis.results import load_cells

    assert "sources" not in load_cells(own / "out")
    assert len(load_results(own / "out")) == 60
