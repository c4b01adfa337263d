"""AUROC of detector scores, with its interval, and detection at a false positive rate."""

from __future__ import annotations

import numpy as np

from defenses.utils.arrays import F64, I64

_RESAMPLES = 1000


def auroc(clean: F64, adversarial: F64) -> float:
    """Return the probability that an adversarial image has a higher score than a clean one; ties count half.

    Args:
        clean: scores of clean images, [N].
        adversarial: scores of adversarial images, [P].

    Returns:
        In [0, 1]; NaN if N or P is 0.
    """
    return _WeightedAuroc(clean, adversarial)(np.ones(len(clean)), np.ones(len(adversarial)))


class _WeightedAuroc:
    """AUROC as a function of image weights; scores are sorted once for all resamples."""

    def __init__(self, clean: F64, adversarial: F64):
        self.order = np.argsort(clean, kind="stable")
        ascending = clean[self.order]
        self.below, self.up_to = (np.searchsorted(ascending, adversarial, side) for side in ("left", "right"))

    def __call__(self, clean: F64, adversarial: F64) -> float:
        total = clean.sum() * adversarial.sum()
        if not total:
            return float("nan")
        weight = np.concatenate([[0.0], np.cumsum(clean[self.order])])
        return float((adversarial * (weight[self.below] + weight[self.up_to])).sum() / (2 * total))


def auroc_interval(clean: F64, adversarial: F64, which: I64, *, seed: int = 0) -> tuple[float, float]:
    """Return a 95% interval of `auroc`: percentiles of a bootstrap over images, clean and adversarial together.

    Args:
        clean: scores of clean images, [N].
        adversarial: scores of adversarial images, [P].
        which: position of the clean image that each adversarial image was made from, int64 [P].
        seed: of the resampling.

    Returns:
        (low, high) in [0, 1]; NaN for fewer than two adversarial images.
    """
    weighted, rng, n = _WeightedAuroc(clean, adversarial), np.random.default_rng(seed), len(clean)
    values = []
    for _ in range(_RESAMPLES if len(adversarial) > 1 else 0):
        weight = np.bincount(rng.integers(0, n, n), minlength=n).astype(float)
        values.append(weighted(weight, weight[which]))
    finite = [value for value in values if value == value]
    if not finite:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def detected(clean: F64, adversarial: F64, rate: float) -> F64:
    """Return 1 for each adversarial image detected at a false positive rate, else 0.

    Args:
        clean: scores of clean images, [N].
        adversarial: scores of adversarial images, [P].
        rate: largest share of clean images above the threshold, in [0, 1); with fewer than 1 / rate clean images,
            none of them is above.

    Returns:
        0 or 1, float64 [P].
    """
    false_positives = int(np.floor(rate * len(clean) + 1e-9))
    threshold = np.sort(clean)[::-1][false_positives] if len(clean) else np.inf
    return (adversarial > threshold).astype(float)
