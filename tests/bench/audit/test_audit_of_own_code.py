"""An audit of own code measures again what was measured with other files of it."""

from dataclasses import replace

from audit_subjects import subject

from bench.spec.cell import DefenseRef
from defenses import load_model

NET = """
import os
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.eval()

    def forward(self, x):
        with open(os.path.join(os.path.dirname(__file__), "scale.txt")) as file:
            return float(file.read()) * x.flatten(1)[:, :10]
"""


def test_a_file_that_own_code_reads_is_part_of_what_was_measured(tmp_path):
    (tmp_path / "mine.py").write_text(NET)
    (tmp_path / "scale.txt").write_text("1")
    name = f"{tmp_path}/mine.py:Net"
    code = DefenseRef("mine", name, {}, {}, False, ("exact",))
    audited = replace(subject(load_model(name), tmp_path, other=False), code=code)

    def measured():
        return audited.cached("sum", lambda: {"sum": float(audited.defense.logits(audited.x, None).sum())})["sum"]

    first = measured()
    assert measured() == first != 0
    (tmp_path / "scale.txt").write_text("-1")
    assert measured() == -first
