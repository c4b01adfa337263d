"""Tracks do the lines of earlier code of one's own again, as boards do their cells."""

import json

import pytest
from boards import purebench_here

NET = """
import os
import torch
from defenses import load_model

HERE = os.path.dirname(os.path.abspath(__file__))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = load_model("undefended").network
        self.eval()

    def forward(self, x):
        with open(os.path.join(HERE, "turn.txt")) as file:
            return self.inner(x).roll(int(file.read()), 1)
"""
COMMANDS = {
    "corruptions": ("corruptions", "{net}", "--corruptions", "contrast", "--severities", "1", "--indices", "first-20"),
    "smooth": ("smooth", "gaussian-noise", "--set", "classifier={net}", "--sigma", "1/4", "--n0", "10", "--n", "20",
               "--indices", "first-3"),
}  # fmt: skip


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "turn.txt").write_text("0")
    return tmp_path / "net.py"


def _run(command, net, out):
    done = purebench_here(*(part.replace("{net}", f"{net}:Net") for part in COMMANDS[command]), "--out", out)
    assert done.returncode == 0, done.stderr
    return done


def _lines(out):
    (file,) = out.glob("*.jsonl")
    return file, file.read_text().splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_lines_of_an_earlier_file_are_done_again(command, net, tmp_path, caplog):
    _run(command, net, tmp_path / "out")
    _, before = _lines(tmp_path / "out")
    _run(command, net, tmp_path / "out")
    assert _lines(tmp_path / "out")[1] == before
    net.with_name("turn.txt").write_text("1")
    done = _run(command, net, tmp_path / "out")
    assert "finished lines are of an earlier turn.txt and are done again" in done.stderr + caplog.text
    _, after = _lines(tmp_path / "out")
    assert len(after) == 2 * len(before) - 1  # all of them but the first, which says what the file is about
    _run(command, net, tmp_path / "fresh")
    for again, fresh in zip(after[len(before) :], _lines(tmp_path / "fresh")[1][1:], strict=True):
        assert _numbers(again) == _numbers(fresh)


def _numbers(line):
    return {key: value for key, value in json.loads(line).items() if key not in ("sources", "seconds")}
