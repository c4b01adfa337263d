"""Repositories that plug-ins load by torch.hub: their modules reach no other code, and count among the plug-in's."""

import sys
from pathlib import Path

import pytest
import torch

from bench.execution.sources import Sources
from bench.spec.cell import DefenseRef
from defenses.utils.plugins import load_object

MINE = """
import torch

def build():
    return torch.hub.load(r"{hub}", "net", source="local")
"""
HUBCONF = """
dependencies = ["torch"]
from models import Net

def net():
    return Net()
"""
MODELS = """
import os
import torch
from parts.shift import K

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = float(open(os.path.join(os.path.dirname(__file__), "scale.txt")).read())
        self.eval()

    def forward(self, x):
        from late import L
        return self.scale * (x + K + L)
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    for name in ("hubconf", "late", "models", "parts", "parts.shift"):  # of other tests
        monkeypatch.delitem(sys.modules, name, raising=False)


def write(folder: Path, name: str, k: int) -> Path:
    """A plug-in, and a repository in a folder of its own."""
    hub = folder / f"hub_{name}"
    files = {"hubconf.py": HUBCONF, "models.py": MODELS, "late.py": f"L = {k}\n", "scale.txt": "2"}
    files |= {"parts/__init__.py": "", "parts/shift.py": f"K = {k}\n"}
    for path, text in files.items():
        (hub / path).parent.mkdir(parents=True, exist_ok=True)
        (hub / path).write_text(text)
    mine = folder / name / "mine.py"
    mine.parent.mkdir()
    mine.write_text(MINE.format(hub=hub))
    return mine


def test_two_repositories_with_modules_of_the_same_names(tmp_path):
    builds = [load_object(f"{write(tmp_path, name, k)}:build") for name, k in (("a", 1), ("b", 2))]
    path = [*sys.path]
    answers = [float(build()(torch.zeros(1))) for build in (*builds, builds[0])]
    assert answers == [4, 8, 4]
    assert not {"models", "parts", "late", "hubconf"} & sys.modules.keys()
    assert sys.path == path


def test_other_code_loads_repositories_as_ever(tmp_path):
    write(tmp_path, "a", 1)
    hub = tmp_path / "hub_a"
    try:
        assert torch.hub.load(str(hub), "net", source="local").scale == 2
        assert Path(sys.modules["models"].__file__ or "") == hub / "models.py"
    finally:
        for name in ("models", "parts", "parts.shift"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("file", "text"), [("late.py", "L = 3\n"), ("scale.txt", "3"), ("parts/shift.py", "K = 3\n"), ("hubconf.py", None)]
)
def test_a_change_in_a_repository_is_one_of_the_plug_in(tmp_path, file, text):
    mine = write(tmp_path, "a", 1)
    load_object(f"{mine}:build")()(torch.zeros(1))
    reference = DefenseRef("a", f"{mine}:build", {}, {}, False, ("exact",))
    line = {"sources": Sources().of_defense(reference)}
    assert Sources().reason_against(reference, line) == ""
    changed = tmp_path / "hub_a" / file
    changed.write_text(text or changed.read_text() + "X = 1\n")
    assert Sources().reason_against(reference, line) == f"an earlier {changed.name}"
    answer = float(load_object(f"{mine}:build")()(torch.zeros(1)))
    assert answer == {"late.py": 8, "scale.txt": 6, "parts/shift.py": 8, "hubconf.py": 4}[file]
