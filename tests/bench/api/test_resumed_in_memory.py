"""Results of a model in memory are taken up again for the same model alone."""

import importlib.util
import sys

import pytest
import torch

from bench import benchmark
from defenses.utils.globals_read import globals_read
from defenses.utils.identity import identity

NET = """
import torch
import torch.nn.functional as F
import {lib}

SIGN = 1.0
WEIGHTS = torch.eye(64)[24:34]
CALLS = 0

def prepared(x):
    return F.relu(x) * scale()

def scale():
    return {lib}.SCALE

class Head:
    def __call__(self, x):
        return 9 * SIGN * x @ WEIGHTS.T - 4

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.head = Head()

    def forward(self, x):
        global CALLS
        CALLS += 1
        return self.head(prepared(x.flatten(1))) + self.anchor
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    lib = f"lib_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{lib}.py").write_text("SCALE = 1.0\n")
    (tmp_path / "mine.py").write_text(NET.format(lib=lib))
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.spec_from_file_location(f"mine_{lib}", tmp_path / "mine.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    module.lib = sys.modules[lib]
    yield module
    sys.modules.pop(lib, None)


def flipped(mine):
    mine.SIGN = -1.0


def other_weights(mine):
    mine.WEIGHTS = mine.WEIGHTS.flip(0)


def other_scale(mine):
    mine.lib.SCALE = -1.0


def other_function(mine):
    exec("def prepared(x):\n    return -F.relu(x)", vars(mine))


@pytest.mark.parametrize("change", [flipped, other_weights, other_scale, other_function])
def test_what_code_reads_of_global_variables_counts(mine, change):
    before = identity(mine.Net(), follow=True)
    assert before == identity(mine.Net(), follow=True)
    assert before[1]  # complete
    change(mine)
    assert identity(mine.Net(), follow=True) != before


def test_what_no_code_reads_or_what_code_counts_changes_nothing(mine):
    net = mine.Net()
    before = identity(net, follow=True)
    net(torch.zeros(1, 1, 8, 8))
    mine.UNUSED = 3
    assert mine.CALLS == 1
    assert identity(net, follow=True) == before


def test_names_are_those_that_functions_read(mine):
    assert set(globals_read(mine.prepared)) == {"F", "scale"}
    assert list(globals_read(mine.scale).values()) == [1.0]
    assert set(globals_read(mine.Net.forward)) == {"prepared"}


def test_a_changed_global_is_no_longer_answered_by_the_old_results(mine, tmp_path):
    few = {"eps": "1/10", "attacks": "torchattacks:FGSM", "out": tmp_path / "out"}

    def clean():
        frame = benchmark(mine.Net().eval(), 20, **few)
        return frame.loc[frame["attack"] == "none", "accuracy"].mean()

    first = clean()
    assert clean() == first
    flipped(mine)
    assert clean() != first
