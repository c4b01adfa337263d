"""A gradient certificate of an earlier state of one's own code is measured again."""

from boards import purebench_here

ROUNDED = """
import os
import torch
from defenses import load_model


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = load_model("undefended").network
        self.eval()

    def forward(self, x):
        with open(os.path.join(os.path.dirname(__file__), "round.txt")) as file:
            return self.inner(x + float(file.read()) * ((4 * x).round() / 4 - x).detach())
"""


def test_a_certificate_of_an_earlier_state_is_measured_again(tmp_path):
    """A file switches a rounding on, which no fingerprint shows."""
    (tmp_path / "net.py").write_text(ROUNDED)
    run = (
        "run",
        "--defense",
        tmp_path / "net.py:Net",
        "--label",
        "mine",
        "--dataset",
        "digits",
        "--indices",
        "first-10",
    )
    run += (
        "--indices",
        "first-10",
        "--eps",
        "1/10",
        "--attack",
        "bench:pgd",
        "--out",
        tmp_path / "out",
        "--workers",
        0,
    )
    for step, marked in (("0", False), ("1", True)):
        (tmp_path / "round.txt").write_text(step)
        assert purebench_here(*run).returncode == 0
        assert ("mine †" in (tmp_path / "out/tables.txt").read_text()) == marked
