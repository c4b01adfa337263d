"""AUROC of weighted scores, with its interval."""

from __future__ import annotations

import numpy as np

from defenses.utils.arrays import F64, I64

_RESAMPLES = 1000


def auroc(clean: F64, adversarial: F64) -> float:
    """The chance that an adversarial image has a higher score than a clean one; ties count half.

    Args:
        clean: scores [N].
        adversarial: scores [P].

    Returns:
        In [0, 1]; NaN where one of them is empty.
    """
    return float(_Ranks(clean, adversarial)(np.ones(len(clean)), np.ones(len(adversarial))))


class _Ranks:
    """AUROC of weighted images, for resampling: what is sorted once serves all resamples."""

    def __init__(self, clean: F64, adversarial: F64):
        self.order = np.argsort(clean, kind="stable")
        ordered = clean[self.order]
        self.below, self.upto = (np.searchsorted(ordered, adversarial, side) for side in ("left", "right"))

    def __call__(self, clean: F64, adversarial: F64) -> float:
        total = clean.sum() * adversarial.sum()
        if not total:
            return float("nan")
        weight = np.concatenate([[0.0], np.cumsum(clean[self.order])])
        return float((adversarial * (weight[self.below] + weight[self.upto])).sum() / (2 * total))


def auroc_interval(clean: F64, adversarial: F64, which: I64, *, seed: int = 0) -> tuple[float, float]:
    """A 95% interval of `auroc`: the percentiles of a bootstrap over images, clean and adversarial together.

    Args:
        clean: scores [N].
        adversarial: scores [P].
        which: of which clean image each adversarial one is made, int64 [P].
        seed: of the resampling.
    """
    ranks, rng, n = _Ranks(clean, adversarial), np.random.default_rng(seed), len(clean)
    found = []
    for _ in range(_RESAMPLES if len(adversarial) > 1 else 0):
        weight = np.bincount(rng.integers(0, n, n), minlength=n).astype(float)
        found.append(ranks(weight, weight[which]))
    kept = [value for value in found if value == value]
    if not kept:
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [0.025, 0.975])
    return float(low), float(high)


def detected(clean: F64, adversarial: F64, rate: float) -> F64:
    """Which adversarial images are above a threshold that at most a share of the clean ones is above, 0 or 1 [P].

    Args:
        clean: scores [N].
        adversarial: scores [P].
        rate: that share; with fewer than 1 / rate clean images none of them is above.
    """
    allowed = int(np.floor(rate * len(clean) + 1e-9))
    threshold = np.sort(clean)[::-1][allowed] if len(clean) else np.inf
    return (adversarial > threshold).astype(float)
