"""A fresh defense by an outsider's hand: certificate, attack and audit, a command each, on the same words."""

from dataclasses import replace

import pytest

import bench.audit.budgets
from bench.analysis.summary import WORST, summary
from bench.cli.main import main
from bench.report.files import current_table
from bench.store.audits import read_audits

PURIFIER = """
import torch
from torch.nn.functional import avg_pool2d
from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier


class Mine(Purifier):
    def __init__(self, sigma=0.15, gain=0.4, steps=3):
        super().__init__()
        self.sigma, self.gain, self.steps = sigma, gain, steps

    def noise(self, shape):
        return NoiseSpec(start=(Draw(shape),), step=(Draw(shape),))

    def start(self, x, z):
        return {"u": x + self.sigma * z[0]}, {"x": x}

    def step(self, state, ctx, k, z):
        u = state["u"] + 0.02 * z[0]
        blurred = avg_pool2d(u, 3, stride=1, padding=1, count_include_pad=False)
        back = torch.sigmoid(6 * (blurred - 0.5)) * (ctx["x"] - u)
        return {"u": u + self.gain * back + 0.2 * (blurred - u)}

    def finish(self, state, ctx):
        return state["u"].clamp(0, 1)


class Masked(Mine):
    def finish(self, state, ctx):
        return (torch.round(4 * state["u"]) / 4).clamp(0, 1)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    sizes = {"images": 12, "steps": 15, "queries": 20, "spsa": (4, 8), "planted": 8, "inner": 48, "draws": 8}
    small = replace(bench.audit.budgets.BUDGETS["quick"], **sizes)
    monkeypatch.setitem(bench.audit.budgets.BUDGETS, "quick", small)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PURIFIER)
    return tmp_path / "mine.py"


def three_commands(name):
    """The exit codes of certificate, attack and audit."""
    own = ["--set", "classifier=undefended"]
    data = ["--dataset", "digits", "--eps", "1/5", "--indices", "first-12"]
    how = ["--attack", "bench:adaptive", "--out", "out", "--workers", "0"]
    return [
        main(["certify", name, *own]),
        main(["run", "--preset", "standard", "--defense", name, *own, *data, *how]),
        main(["audit", "out", "--quiet"]),
    ]


def test_an_honest_one_goes_through(file, tmp_path, capsys):
    name = f"{file}:Mine"
    assert three_commands(name) == [0, 0, 0]
    said = capsys.readouterr().out
    assert "\nmine.py:Mine: passed on 4 images" in f"\n{said}"
    assert "mine.py:Mine, Linf 1/5 on digits (12 images, quick budget): passes the audit" in said
    rows = summary(tmp_path / "out").set_index("attack")
    assert rows.loc[WORST, "robust_mean"] < rows.loc["none", "robust_mean"]
    table = current_table(tmp_path / "out")
    assert "†" not in table
    assert "‡" not in table


def test_one_that_masks_its_gradients_is_found(file, tmp_path):
    assert three_commands(f"{file}:Masked") == [0, 0, 1]  # no gradient is an exact one
    assert "zero gradients" in read_audits(tmp_path / "out")[0]["failed"]
    assert "mine.py:Masked ‡" in current_table(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["certify", "mine.py:Mine"], "on the command line --set classifier=undefended"),
        (["run", "quickstart"], "--set is for a run without a board"),
        (
            ["run", "--preset", "standard", "--dataset", "digits", "--eps", "1/5", "--defense", "adp", "pgd-at"],
            "--set is for one defense",
        ),
    ],
)
def test_what_trips_is_one_line(file, capsys, arguments, says):
    assert main([*arguments, "--set", "runs=2"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
