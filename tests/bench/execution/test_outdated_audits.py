"""An audit of an earlier state of the user's files does not count, and counts again when the files are as before."""

import json

from boards import purebench_here

from bench.analysis.loaders import load_audits
from bench.audit.findings import Audit, Finding
from bench.audit.run import write
from bench.store.folder import Store
from bench.store.manifest import read_manifest

OWN = """
import os
import torch
from defenses import load_model


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = load_model("undefended").network
        self.eval()

    def forward(self, x):
        with open(os.path.join(os.path.dirname(__file__), "scale.txt")) as file:
            return float(file.read()) * self.inner(x)
"""


def test_a_failed_audit_is_marked_while_its_files_are_as_they_were(tmp_path):
    (tmp_path / "net.py").write_text(OWN)
    out = tmp_path / "out"
    run = (
        "run",
        "--defense",
        tmp_path / "net.py:Net",
        "--label",
        "mine",
        "--dataset",
        "digits",
        "--indices",
        "first-3",
    )
    run += ("--eps", "1/10", "--attack", "bench:pgd", "--out", out, "--workers", 0)

    def states(scale: str) -> tuple[bool, int, str]:
        """Return whether tables mark the defense, the rows of its audit, and what the run said."""
        (tmp_path / "scale.txt").write_text(scale)
        told = purebench_here(*run)
        assert told.returncode == 0
        return "mine ‡" in (out / "tables.txt").read_text(), len(load_audits(out)), told.stderr

    assert states("1")[:2] == (False, 0)
    line = next(iter(Store(out).finished().values()))
    about = {"fingerprint": read_manifest(out)["defenses"]["mine"], "dataset": "digits", "norm": "Linf", "eps": "1/10"}
    about |= {"key": "", "images": 3, "budget": "small", "seed": 0, "sources": line["sources"]}
    write(out, Audit("mine", about, (Finding("zero gradients", "fail", "all of them"),)))
    assert states("1")[:2] == (True, 1)
    marked, rows, told = states("2")
    assert (marked, rows) == (False, 0)
    assert "note: the audit of mine at Linf 1/10 is of an earlier scale.txt, and does not count; run purebench" in told
    assert json.loads((out / "audit/audit.json").read_text())["audits"][0]["outdated"] == "an earlier scale.txt"
    assert states("1")[:2] == (True, 1)
