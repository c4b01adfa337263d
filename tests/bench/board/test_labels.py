"""Labels of users' own files: no folder of the machine, and no two files alike."""

import json

import numpy as np
import pytest
from boards import ROOT, purebench, purebench_here

from bench.board.labels import with_labels
from bench.board.load import load_board
from bench.store.environment import _command
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError
from defenses.utils.names import is_short_of, short_names

NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed({seed})
        self.layer = torch.nn.Linear(64, 10)
        self.eval()

    def forward(self, x):
        return self.layer(x.flatten(1))
"""
BOARD = """
dataset = "digits"
indices = "first-8"
threat = {{ norm = "Linf", eps = "1/10" }}
defense = [{{ name = "{0}/a/net.py:Net" }}, {{ name = "{0}/b/net.py:Net" }}]
attack = [{{ name = "bench:apgd", params = {{ steps = 2 }}, on = "{0}/b/net.py:Net" }}, {{ name = "given:{0}/x.npz" }}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two files of one name, images, and a board that names them by absolute paths."""
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(NET.format(seed=seed))
    data = load_dataset("digits")
    np.savez(tmp_path / "x.npz", x_adv=data.x[:8].numpy(), index=np.arange(8))
    (tmp_path / "two.toml").write_text(BOARD.format(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["/home/me/mine.py:Net"], ["mine.py:Net"]),
        (["~/x/mine.py:Net", "adp", "package.module:Net"], ["mine.py:Net", "adp", "package.module:Net"]),
        (["/h/a/net.py:Net", "/h/b/net.py:Net"], ["a/net.py:Net", "b/net.py:Net"]),
        (["/h/a/net.py:Net", "/h/a/net.py:Other"], ["net.py:Net", "net.py:Other"]),
        (["net.py:Net", "/h/a/net.py:Net"], ["net.py:Net", "a/net.py:Net"]),
        (
            ["/h/a/x/net.py:Net", "/h/b/x/net.py:Net", "c/net.py:Net"],
            ["a/x/net.py:Net", "b/x/net.py:Net", "c/net.py:Net"],
        ),
        (["./net.py:Net", "net.py:Net"], ["net.py:Net", "net.py:Net"]),
        (["C:\\work\\net.py:Net"], ["net.py:Net"]),
        (["given:/h/a/x.npz", "given:/h/b/x.npz"], ["given:a/x.npz", "given:b/x.npz"]),
    ],
)
def test_names_are_as_short_as_tells_them_apart(names, labels):
    assert short_names(names) == labels
    assert all(label == name or is_short_of(label, name) for label, name in zip(labels, names, strict=True))


def test_own_labels_stay():
    entries = [{"name": "/h/a/net.py:Net", "label": "mine"}, {"name": "/h/b/net.py:Net"}]
    assert [entry["label"] for entry in with_labels(entries)] == ["mine", "b/net.py:Net"]
    assert [entry["label"] for entry in with_labels(entries, ["x", "y"])] == ["x", "y"]
    with pytest.raises(UserError, match="2 and the labels 1"):
        with_labels(entries, ["x"])


def test_the_same_file_twice_is_refused(folder):
    text = (folder / "two.toml").read_text().replace('/b/net.py:Net" }]', '/a/../a/net.py:Net" }]')
    (folder / "two.toml").write_text(
        text.replace("/a/../a/", "/./a/").replace(f'on = "{folder}/b', f'on = "{folder}/a')
    )
    result = purebench_here("plan", "two.toml")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "give each a label of its own" in result.stderr


def test_labels_are_no_part_of_a_key(folder):
    plain = load_board("two.toml")
    text = (folder / "two.toml").read_text().replace('a/net.py:Net" }', 'a/net.py:Net", label = "mine" }', 1)
    (folder / "labelled.toml").write_text(text)
    labelled = load_board("labelled.toml")
    assert [c.key for c in labelled.cells()] == [c.key for c in plain.cells()]
    assert [d.label for d in labelled.defenses] == ["mine", "b/net.py:Net"]
    assert [d.label for d in plain.defenses] == ["a/net.py:Net", "b/net.py:Net"]


def test_nothing_that_is_written_has_a_folder_of_the_machine(folder):
    """Neither a table nor a record, nor the command line of the manifest."""
    result = purebench("run", folder / "two.toml", "--out", folder / "out", cwd=folder)
    assert result.returncode == 0, result.stderr
    written = [path for path in (folder / "out").rglob("*") if path.is_file() and ".locks" not in path.parts]
    assert len(written) > 8
    assert not [path for path in written if str(folder).encode() in path.read_bytes()]
    assert "a/net.py:Net" in (folder / "out/tables.md").read_text()
    chosen = purebench_here("plan", "two.toml", "--out", "out", "--defense", f"{folder}/b/net.py:Net")
    assert "bench:apgd" in chosen.stdout
    assert "a/net.py" not in chosen.stdout
    info = json.loads(purebench_here("model-info", "export", "out", "--defense", "b/net.py:Net").stdout)
    assert (info["name"], info["number_forward_passes"]) == ("b/net.py:Net", 1)


def test_commands_take_a_label(folder):
    net, plain = f"{folder}/a/net.py:Net", ["--eps", "1/10", "--indices", "first-8"]
    certified = purebench_here("certify", net, "--label", "mine").stdout
    assert certified.startswith("mine: ")
    assert purebench_here("certify", net).stdout.startswith("net.py:Net: ")
    judged = purebench_here("judge", "x.npz", "--defense", net, "--defense-label", "mine", "--eps", "1/10", "--quiet")
    assert judged.returncode == 0, judged.stderr
    assert "mine" in (folder / "results/judge-x/tables.csv").read_text()
    named = ["--defense", net, f"{folder}/b/net.py:Net", "--dataset", "digits", "--attack", "bench:apgd", *plain]
    planned = purebench_here("plan", *named, "--label", "one", "other").stdout
    assert "| other | bench:apgd |" in planned
    assert "results in results/attacks-digits-one-other" in planned
    assert "| b/net.py:Net | bench:apgd |" in purebench_here("plan", *named).stdout
    corrupted = purebench_here(
        *(
            "corruptions",
            net,
            "--label",
            "mine",
            "--corruptions",
            "contrast",
            "--severities",
            "1",
            "--indices",
            "first-8",
        )
    )
    assert corrupted.returncode == 0, corrupted.stderr
    assert (folder / "results/corruptions-digits/mine.jsonl").is_file()


@pytest.mark.parametrize("command", ["run", "plan", "status", "certify", "audit", "corruptions"])
def test_a_board_has_its_labels_in_its_file(command):
    result = purebench_here(command, "quickstart", "--label", "mine")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "label" in result.stderr


def test_the_recorded_command_has_no_folders():
    words = ["/home/me/.venv/bin/purebench", "run", "/home/me/my dir/a.toml", "--out", "/scratch/x/", "--eps", "8/255"]
    assert _command([*words, "--set", "classifier=/home/me/n.py:N"]) == (
        "purebench run a.toml --out x --eps 8/255 --set classifier=n.py:N"
    )
    assert _command(["/usr/bin/pytest"]) == "(from Python)"


def test_examples_keep_the_keys_of_their_cells(monkeypatch):
    """A name without folders is its own label, as before."""
    monkeypatch.chdir(ROOT / "bench/examples")
    assert load_board("board.toml").defenses[0].label == "undefended"
    assert short_names(["own_defense.py:OwnDefense"]) == ["own_defense.py:OwnDefense"]
