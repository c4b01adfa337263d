"""Names and values of the checks of a gradient certificate."""

from all_paths import X

from bench.evaluation.certificates.measure import certify

DIFFERENCES = "float64 gradient against central differences"
LINE = "integral of the gradient along a line against the change of the logits"
COSINE = "cosine of float32 and float64 gradients"


def values(defense, x=X):
    certificate = certify(defense, x)
    return certificate, {c.name: c for c in certificate.checks}
