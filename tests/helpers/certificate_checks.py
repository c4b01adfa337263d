"""Names and values of the checks of a gradient certificate."""

from all_paths import X

from bench.evaluation.certificates import differences
from bench.evaluation.certificates.measure import certify

DIFFERENCES = "float64 gradient against central differences"
LINE = "integral of the gradient along lines against the change of the logits"
COSINE = "cosine of float32 and float64 gradients"


def values(defense, x=X):
    certificate = certify(defense, x)
    return certificate, {c.name: c for c in certificate.checks}


KINKED = """from networks import classifier

def made():
    return classifier("resnet", 8, 10)
"""


def only_wide_differences(monkeypatch):
    """Let networks with kinks be crossed by all differences, as networks are that are too large."""
    monkeypatch.setattr(differences, "_WIDTHS", (1e-2, 1e-3))
