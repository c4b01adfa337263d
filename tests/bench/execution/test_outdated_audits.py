"""Audits and gradient certificates of an earlier state of the user's files do not count, until these are as before."""

import json

from boards import purebench_here

from bench.analysis.loaders import load_audits
from bench.audit.findings import Audit, Finding
from bench.audit.run import write
from bench.store.folder import Store
from bench.store.manifest import read_manifest

NET = """
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
            scale = float(file.read())
        return {answer}
"""


def run_net(folder, answer, scale):
    """Run attacks on a network that reads the file scale.txt, which no fingerprint shows; return standard error."""
    (folder / "net.py").write_text(NET.format(answer=answer))
    (folder / "scale.txt").write_text(scale)
    words = ["--label", "mine", "--dataset", "digits", "--indices", "first-10", "--eps", "1/10", "--workers", 0]
    done = purebench_here(
        "run", "--defense", folder / "net.py:Net", *words, "--attack", "bench:pgd", "--out", folder / "out"
    )
    assert done.returncode == 0
    return done.stderr


def test_a_certificate_of_an_earlier_state_is_measured_again(tmp_path):
    for scale, marked in (("0", False), ("1", True)):
        run_net(tmp_path, "self.inner(x + scale * ((4 * x).round() / 4 - x).detach())", scale)
        assert ("mine †" in (tmp_path / "out/tables.txt").read_text()) == marked


def test_a_failed_audit_is_marked_while_its_files_are_as_they_were(tmp_path):
    out = tmp_path / "out"

    def states(scale: str) -> tuple[bool, int, str]:
        """Return whether tables mark the defense, the rows of its audit, and what the run said."""
        told = run_net(tmp_path, "scale * self.inner(x)", scale)
        return "mine ‡" in (out / "tables.txt").read_text(), len(load_audits(out)), told

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
